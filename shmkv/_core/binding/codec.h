/* codec.h: the "safe" codec: Python objects to a type byte and payload bytes, and back.
 *
 * codec_format.h has the format, encode.c and decode.c the two directions.  Both run outside any
 * bucket lock: a value is encoded before the engine is entered, and decoded from a private copy
 * after it has been left.
 */
#ifndef SKV_CODEC_H
#define SKV_CODEC_H

#include <Python.h>

#include <stddef.h>
#include <stdint.h>

/* What an encoder hands to the engine: `len` bytes at `data`, which lie in `owner` (a bytes or
 * str object kept alive, nothing is copied), in `small` or in `heap`.  Because `data` may point
 * into the struct itself, an skv_encoded is moved by skv_encoded_move only: no memcpy, no realloc of an array. */
typedef struct skv_encoded {
    uint8_t type;               /* enum skv_type                                              */
    const uint8_t *data;        /* never NULL after success                                   */
    size_t len;                 /* bytes, at most SKV_MAX_VALUE                               */
    PyObject *owner;            /* strong reference or NULL                                   */
    uint8_t small[32];
    uint8_t *heap;              /* PyMem_RawMalloc or NULL                                    */
} skv_encoded;

/* Once per process, before all else.  -1 with an exception set. */
int skv_encode_init(void);
int skv_decode_init(void);

/* Needs the GIL (or an attached thread state); the caller holds `value`.  -1 with an exception
 * set and nothing to clear: TypeError (refused), ValueError (too large), RuntimeError (a
 * container changed meanwhile), MemoryError.  skv_encoded_clear needs the GIL too. */
int skv_encode_safe(PyObject *value, skv_encoded *out);
void skv_encoded_clear(skv_encoded *e);

/* What `from` held is `to`'s: nothing of `from` is to be cleared any more. */
static inline void skv_encoded_move(skv_encoded *to, const skv_encoded *from)
{
    *to = *from;
    if (from->data == from->small)
        to->data = to->small;
}

/* `data` is memory that no other process can change.  NULL with ValueError ("damaged value:
 * ...") or MemoryError set.  Hostile bytes cost at most time and memory in proportion to `len`. */
PyObject *skv_decode_safe(uint8_t type, const uint8_t *data, size_t len);

#endif
