/* codec_format.h: the bytes of the "safe" codec.
 *
 * What: a value is a type byte (enum skv_type, layout.h) and a payload.  At the top the type
 * byte and the payload's length lie in the record; inside a container each item carries them:
 *
 *     record    = type payload            ; both ends known from the record
 *     item      = type fixed              ; types of one size carry no length
 *               | type varint sized       ; varint = the bytes of `sized`
 *               | type container          ; delimits itself through its counts
 *
 *     fixed     = INT        i64
 *               | FLOAT      f64          ; IEEE 754 binary64, every bit kept
 *               | FALSE | TRUE | NONE     ; nothing
 *               | DATE       u16 year, u8 month, u8 day
 *               | TIMEDELTA  i32 days, u32 seconds < 86400, u32 microseconds < 10^6
 *     sized     = BYTES      the bytes
 *               | STR        UTF-8, no surrogates
 *               | BIGINT     two's complement, shortest, so at least 9 bytes
 *               | DATETIME   moment zone
 *     container = LIST       varint count, item * count
 *               | TUPLE      varint count, item * count
 *               | DICT       varint count, (item key, item value) * count, in insertion order
 *               | SET        varint count, item * count, in any order
 *               | FROZENSET  varint count, item * count, in any order
 *     moment    = u16 year, u8 month, u8 day, u8 hour, u8 minute, u8 second,
 *                 u8 fold << 7 | zone kind, u32 microsecond
 *     zone      =                         ; kind 0, naive
 *               |                         ; kind 1, timezone.utc
 *               | i64 offset              ; kind 2, timezone(offset), microseconds east of UTC
 *               | i64 offset, UTF-8 name  ; kind 3, timezone(offset, name); name to the end
 *               | UTF-8 key               ; kind 4, ZoneInfo(key); key to the end
 *     varint    = 7 bits a byte, least significant first, bit 7 says that more follow; shortest
 *                 form, below 2^32
 *
 * All integers are little-endian.  Containers nest at most 200 deep.  A record may also have
 * type BYTES_TYPED (u8 n, n bytes of content type, the bytes), which decodes to the bytes; it
 * never stands inside a container.  Of equal keys or set items in a damaged value the last wins.
 *
 * Concurrency: none; pure functions over memory of the caller.
 */
#ifndef SKV_CODEC_FORMAT_H
#define SKV_CODEC_FORMAT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../layout.h"
#include "../little.h"

#define MAX_DEPTH        200u   /* 100 are promised; 200 frames of write_* need about 50 KiB  */
#define MAX_VARINT       5      /* bytes: 35 bits hold SKV_MAX_VALUE                          */
#define MOMENT_SIZE      12u
#define DATE_SIZE        4u
#define TIMEDELTA_SIZE   12u
#define DAY_SECONDS      86400
#define SECOND_US        1000000
#define MAX_DELTA_DAYS   999999999

enum zone_kind { ZONE_NAIVE = 0, ZONE_UTC = 1, ZONE_OFFSET = 2, ZONE_NAMED_OFFSET = 3, ZONE_INFO = 4 };
#define ZONE_KIND_MASK   0x7fu
#define FOLD_SHIFT       7

static_assert(sizeof(double) == 8, "a float is binary64");
static_assert(SKV_MAX_VALUE < UINT64_C(1) << (7 * MAX_VARINT), "a varint holds every length");

/* ---- Numbers -------------------------------------------------------------------------- */

static inline uint64_t float_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline double bits_float(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline size_t put_varint(uint8_t *to, uint64_t value)
{
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) {
        to[n++] = (uint8_t)(value | 0x80);
    }
    to[n++] = (uint8_t)value;
    return n;
}

/* True if the last byte only repeats the sign that the one before it has. */
static inline int has_spare_sign(const uint8_t *data, size_t len)
{
    return data[len - 1] == (data[len - 2] & 0x80 ? 0xff : 0x00);
}

#endif
