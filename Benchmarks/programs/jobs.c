// A client of a pool that costs next to nothing itself: submits jobs through JetStream and waits for their results.
//
//   jobs URL PREFIX throughput COUNT     all at once: rates of submission and of results
//   jobs URL PREFIX latency COUNT        one at a time: from before the publish until the result event has come
//
// Prints JSON. Every job is /bin/true, its id PREFIX-<number>. Ends with status 1 when a job did not succeed.

#include <nats/nats.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DEADLINE_SECONDS = 300 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void check(natsStatus status, const char *what) {
    if (status == NATS_OK) return;
    fprintf(stderr, "jobs: %s: %s\n", what, natsStatus_GetText(status));
    exit(69);
}

// What has come so far.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static long results, failures;

static void take(natsConnection *connection, natsSubscription *subscription, natsMsg *message, void *closure) {
    (void)connection, (void)subscription, (void)closure;
    bool succeeded = strstr(natsMsg_GetData(message), "\"ok\":true") != NULL;
    natsMsg_Destroy(message);
    pthread_mutex_lock(&lock);
    results++;
    if (!succeeded) failures++;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
}

static void wait_for(long count) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += DEADLINE_SECONDS;
    pthread_mutex_lock(&lock);
    while (results < count) {
        if (pthread_cond_timedwait(&changed, &lock, &until) != 0) {
            fprintf(stderr, "jobs: only %ld of %ld results came in %d s\n", results, count, DEADLINE_SECONDS);
            exit(75);
        }
    }
    pthread_mutex_unlock(&lock);
}

static natsMsg *submission(const char *prefix, long number) {
    char id[160], header[170], body[400];
    snprintf(id, sizeof id, "%s-%07ld", prefix, number);
    snprintf(header, sizeof header, "sub:%s", id);
    int size = snprintf(body, sizeof body, "{\"task_id\":\"%s\",\"cmd\":[\"/bin/true\"],\"max_retries\":0}", id);
    natsMsg *message = NULL;
    check(natsMsg_Create(&message, "gpu.task.enqueue", NULL, body, size), "a message");
    check(natsMsgHeader_Set(message, "Nats-Msg-Id", header), "a header");
    return message;
}

static void throughput(jsCtx *stream, const char *prefix, long count) {
    double began = now();
    for (long number = 0; number < count; number++) {
        natsMsg *message = submission(prefix, number);
        check(js_PublishMsgAsync(stream, &message, NULL), "a submission");
    }
    jsPubOptions options;
    check(jsPubOptions_Init(&options), "options");
    options.MaxWait = 60000;
    check(js_PublishAsyncComplete(stream, &options), "the acks of the submissions");
    double submitted = now() - began;
    wait_for(count);
    printf("{\"jobs\": %ld, \"submitted_per_second\": %.1f, \"per_second\": %.1f}\n", count, (double)count / submitted,
        (double)count / (now() - began));
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void latency(jsCtx *stream, const char *prefix, long count) {
    double *milliseconds = calloc((size_t)count, sizeof *milliseconds);
    if (milliseconds == NULL) exit(71);
    for (long number = 0; number < count; number++) {
        double began = now();
        natsMsg *message = submission(prefix, number);
        check(js_PublishMsgAsync(stream, &message, NULL), "a submission");
        wait_for(number + 1);
        milliseconds[number] = (now() - began) * 1e3;
    }
    printf("{\"jobs\": %ld, \"all_ms\": [", count);
    for (long number = 0; number < count; number++) printf("%s%.3f", number ? ", " : "", milliseconds[number]);
    qsort(milliseconds, (size_t)count, sizeof *milliseconds, ascending);
    printf("], \"p50_ms\": %.3f, \"p99_ms\": %.3f}\n", milliseconds[count / 2], milliseconds[count * 99 / 100]);
    free(milliseconds);
}

int main(int count_of_arguments, char **arguments) {
    long count = count_of_arguments == 5 ? strtol(arguments[4], NULL, 10) : 0;
    bool isThroughput = count > 0 && strcmp(arguments[3], "throughput") == 0;
    if (count < 1 || (!isThroughput && strcmp(arguments[3], "latency") != 0)) {
        fprintf(stderr, "usage: jobs URL PREFIX throughput|latency COUNT\n");
        return 64;
    }
    natsOptions *options = NULL;
    natsConnection *connection = NULL;
    natsSubscription *subscription = NULL;
    jsCtx *stream = NULL;
    check(natsOptions_Create(&options), "options");
    check(natsOptions_SetURL(options, arguments[1]), "the address");
    check(natsOptions_SetSendAsap(options, true), "options");
    check(natsConnection_Connect(&connection, options), "the connection");
    check(natsConnection_Subscribe(&subscription, connection, "gpu.task.result.*", take, NULL), "the subscription");
    check(natsSubscription_SetPendingLimits(subscription, -1, -1), "the subscription");
    check(natsConnection_Flush(connection), "the subscription");
    jsOptions settings;
    check(jsOptions_Init(&settings), "options");
    settings.PublishAsync.MaxPending = 4096;
    check(natsConnection_JetStream(&stream, connection, &settings), "JetStream");

    if (isThroughput) {
        throughput(stream, arguments[2], count);
    } else {
        latency(stream, arguments[2], count);
    }

    natsSubscription_Destroy(subscription);
    jsCtx_Destroy(stream);
    natsConnection_Destroy(connection);
    natsOptions_Destroy(options);
    nats_Close();
    if (failures > 0) fprintf(stderr, "jobs: %ld jobs did not succeed\n", failures);
    return failures > 0 ? 1 : 0;
}
