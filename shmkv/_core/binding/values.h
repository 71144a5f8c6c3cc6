/* values.h: from Python values to a record's type and bytes and back, by the handle's codec.
 *
 * What: the scalars that every handle knows are stored natively; what the safe codec does not take
 *       goes through the handle's `encode`, under a type byte that says whose bytes they are.
 *
 * Both directions may run any Python code (codecs, finalizers): never between handle_enter and
 * handle_leave.
 */
#ifndef SKV_VALUES_H
#define SKV_VALUES_H

#include "codec.h"
#include "inflight.h"

/* Values from here on are copied without the GIL. */
#define SKV_LONG_VALUE ((size_t)64 << 10)

/* False with an exception set, and nothing to clear; else skv_encoded_clear. */
bool value_encode(Handle *handle, PyObject *value, skv_encoded *out);
/* `content_type` NULL or None: as value_encode. */
bool value_encode_typed(Handle *handle, PyObject *value, PyObject *content_type, skv_encoded *out);
/* As value_encode_typed; or `content_type` is the number of a type, and `value` the payload that a record of it has:
 * bytes that some handle encoded once, and that are stored again as they are. */
bool value_encode_item(Handle *handle, PyObject *value, PyObject *content_type, skv_encoded *out);
/* `data` is private memory.  CodecError where it cannot be decoded. */
PyObject *value_decode(Handle *handle, uint8_t type, const uint8_t *data, size_t len);

bool codec_mode_parse(const char *name, enum codec_mode *out);

#endif
