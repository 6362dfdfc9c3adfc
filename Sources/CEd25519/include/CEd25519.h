#ifndef CED25519_H
#define CED25519_H

#include <stddef.h>
#include <stdint.h>

// Ed25519 (RFC 8032) by libcrypto, which libnats has loaded already: a few pages more in a worker, where a library of
// our own would be megabytes. All return 1 for success and 0 otherwise.

enum { ED25519_KEY_SIZE = 32, ED25519_SIGNATURE_SIZE = 64 };

/// The public key that belongs to a seed.
int ed25519_public_key(const uint8_t seed[ED25519_KEY_SIZE], uint8_t public_key[ED25519_KEY_SIZE]);

int ed25519_sign(const uint8_t seed[ED25519_KEY_SIZE], const uint8_t *message, size_t length,
                 uint8_t signature[ED25519_SIGNATURE_SIZE]);

/// 0 also for a public key that is none.
int ed25519_verify(const uint8_t public_key[ED25519_KEY_SIZE], const uint8_t *message, size_t length,
                   const uint8_t signature[ED25519_SIGNATURE_SIZE]);

#endif
