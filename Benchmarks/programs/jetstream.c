// How fast a stream of this server takes messages from one client, through libnats: the limit for everything that is
// written durably, one write after the other or many under way.
//
//   jetstream URL COUNT BYTES      makes a file stream of its own, and removes it; prints the rates as JSON

#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void check(natsStatus status, const char *what) {
    if (status == NATS_OK) return;
    fprintf(stderr, "jetstream: %s: %s\n", what, natsStatus_GetText(status));
    exit(69);
}

static double synchronous(jsCtx *stream, const char *subject, const char *payload, int size, long count) {
    double began = now();
    for (long index = 0; index < count; index++)
        check(js_Publish(NULL, stream, subject, payload, size, NULL, NULL), "a synchronous publish");
    return (double)count / (now() - began);
}

static double asynchronous(jsCtx *stream, const char *subject, const char *payload, int size, long count) {
    double began = now();
    for (long index = 0; index < count; index++)
        check(js_PublishAsync(stream, subject, payload, size, NULL), "an asynchronous publish");
    jsPubOptions options;
    check(jsPubOptions_Init(&options), "options");
    options.MaxWait = 60000;
    check(js_PublishAsyncComplete(stream, &options), "the last acks");
    return (double)count / (now() - began);
}

int main(int count_of_arguments, char **arguments) {
    long count = count_of_arguments == 4 ? strtol(arguments[2], NULL, 10) : 0;
    int size = count_of_arguments == 4 ? atoi(arguments[3]) : 0;
    if (count < 1 || size < 1) {
        fprintf(stderr, "usage: jetstream URL COUNT BYTES\n");
        return 64;
    }
    natsOptions *options = NULL;
    natsConnection *connection = NULL;
    jsCtx *stream = NULL;
    check(natsOptions_Create(&options), "options");
    check(natsOptions_SetURL(options, arguments[1]), "the address");
    check(natsOptions_SetSendAsap(options, true), "options");
    check(natsConnection_Connect(&connection, options), "the connection");
    jsOptions settings;
    check(jsOptions_Init(&settings), "options");
    settings.PublishAsync.MaxPending = 4096;
    check(natsConnection_JetStream(&stream, connection, &settings), "JetStream");
    const char *subjects[] = {"bench.limit"};
    jsStreamConfig config;
    check(jsStreamConfig_Init(&config), "options");
    config.Name = "BENCH_LIMIT";
    config.Subjects = subjects;
    config.SubjectsLen = 1;
    check(js_AddStream(NULL, stream, &config, NULL, NULL), "the stream");
    char *payload = malloc((size_t)size);
    if (payload == NULL) return 71;
    memset(payload, 'x', (size_t)size);

    double one_by_one = synchronous(stream, subjects[0], payload, size, count / 10 + 1);
    double pipelined = asynchronous(stream, subjects[0], payload, size, count);
    printf("{\"bytes\": %d, \"sync_per_second\": %.0f, \"async_per_second\": %.0f}\n", size, one_by_one, pipelined);

    check(js_DeleteStream(stream, config.Name, NULL, NULL), "the stream's end");
    free(payload);
    jsCtx_Destroy(stream);
    natsConnection_Destroy(connection);
    natsOptions_Destroy(options);
    nats_Close();
    return 0;
}
