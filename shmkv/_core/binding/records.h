/* records.h: an item as it is stored, for those who hand it on without decoding it: the server, exports.
 *
 * What: the tuple (type, payload, content_type, version, expires_ms): an enum skv_type, the value's bytes in that
 *       type's form (without the content type that a typed bytes value begins with), what ETags are made of, and
 *       the time of expiry on the store's clock, 0 = never.
 */
#ifndef SKV_RECORDS_H
#define SKV_RECORDS_H

#include "binding.h"

typedef struct stored_value {
    uint8_t type;
    const uint8_t *data;        /* private memory                                              */
    size_t len;
    uint64_t version, expires_ms;
} stored_value;

/* `bytes` (may be NULL): an object that holds exactly the value's bytes. */
PyObject *record_new(const stored_value *stored, PyObject *bytes);

#endif
