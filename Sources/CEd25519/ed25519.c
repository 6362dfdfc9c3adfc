#include "CEd25519.h"

#include <openssl/evp.h>

int ed25519_public_key(const uint8_t seed[ED25519_KEY_SIZE], uint8_t public_key[ED25519_KEY_SIZE]) {
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, ED25519_KEY_SIZE);
    size_t size = ED25519_KEY_SIZE;
    int ok = key && EVP_PKEY_get_raw_public_key(key, public_key, &size) == 1 && size == ED25519_KEY_SIZE;
    EVP_PKEY_free(key);
    return ok;
}

int ed25519_sign(const uint8_t seed[ED25519_KEY_SIZE], const uint8_t *message, size_t length,
                 uint8_t signature[ED25519_SIGNATURE_SIZE]) {
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, ED25519_KEY_SIZE);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    size_t size = ED25519_SIGNATURE_SIZE;
    int ok = key && context && EVP_DigestSignInit(context, NULL, NULL, NULL, key) == 1 &&
             EVP_DigestSign(context, signature, &size, message, length) == 1 && size == ED25519_SIGNATURE_SIZE;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    return ok;
}

int ed25519_verify(const uint8_t public_key[ED25519_KEY_SIZE], const uint8_t *message, size_t length,
                   const uint8_t signature[ED25519_SIGNATURE_SIZE]) {
    EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_key, ED25519_KEY_SIZE);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    int ok = key && context && EVP_DigestVerifyInit(context, NULL, NULL, NULL, key) == 1 &&
             EVP_DigestVerify(context, signature, ED25519_SIGNATURE_SIZE, message, length) == 1;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    return ok;
}
