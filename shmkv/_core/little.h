/* little.h: numbers in files, little-endian whatever the machine is. */
#ifndef SKV_LITTLE_H
#define SKV_LITTLE_H

#include <stdint.h>

static inline void skv_put_little(uint8_t *at, uint64_t n, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(n >> (8 * i));
}

static inline uint64_t skv_get_little(const uint8_t *at, uint32_t bytes)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < bytes; i++)
        n |= (uint64_t)at[i] << (8 * i);
    return n;
}

#endif
