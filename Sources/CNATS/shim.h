#ifndef MAESTRO_CNATS_SHIM_H
#define MAESTRO_CNATS_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <nats/nats.h>

/// Publishes one message.
///
/// `frame` holds NUL-terminated strings one after the other: the subject, the reply subject (empty for none), then
/// `headerCount` pairs of header name and value. One flat block costs the caller one buffer instead of one bridged
/// string per field. `*made` is the message object that the caller has to destroy; NULL without headers, since none is
/// made then.
static inline natsStatus cnats_publish(
    natsConnection *connection, const char *frame, int headerCount, const void *payload, int payloadLength,
    natsMsg **made) {
    const char *subject = frame;
    const char *reply = subject + strlen(subject) + 1;
    const char *field = reply + strlen(reply) + 1;
    natsStatus status;

    *made = NULL;
    if (headerCount == 0) {
        if (*reply == '\0')
            return natsConnection_Publish(connection, subject, payload, payloadLength);
        return natsConnection_PublishRequest(connection, subject, reply, payload, payloadLength);
    }
    status = natsMsg_Create(made, subject, *reply == '\0' ? NULL : reply, (const char *)payload, payloadLength);
    for (int i = 0; status == NATS_OK && i < headerCount; i++) {
        const char *value = field + strlen(field) + 1;
        status = natsMsgHeader_Add(*made, field, value);
        field = value + strlen(value) + 1;
    }
    if (status == NATS_OK)
        status = natsConnection_PublishMsg(connection, *made);
    return status;
}

/// A number as the opaque pointer that the library hands back to a callback, and the number out of it again.
/// Callbacks are found by number, never by address, so a late callback can only miss.
static inline void *cnats_context(unsigned long number) { return (void *)number; }
static inline unsigned long cnats_number(void *context) { return (unsigned long)context; }

#endif
