// Follows single jobs over the bus: when each message of a job was seen, counted from just before its publish.
//
//   trace URL PREFIX COUNT     one job after the other; prints a line of JSON for each:
//                              {"seen": [["enqueue", us], ["enqueued", us], ..., ["result", us]]}
//
// A revision of a record is named after its state, another message after the second part of its subject.

#include <nats/nats.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_EVENTS = 64, DEADLINE_SECONDS = 30 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static void check(natsStatus status, const char *what) {
    if (status == NATS_OK) return;
    fprintf(stderr, "trace: %s: %s\n", what, natsStatus_GetText(status));
    exit(69);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct {
    char name[32];
    double at;
} events[MOST_EVENTS];
static int count;
static bool has_ended;
static char job[128];

// The word behind `key` in a message, up to the next quote or dot.
static void name_of(natsMsg *message, char *name, size_t size) {
    const char *subject = natsMsg_GetSubject(message), *word = subject + strlen("gpu.task.");
    if (strncmp(word, "state.", 6) == 0) {
        const char *state = strstr(natsMsg_GetData(message), "\"state\":\"");
        if (state != NULL) word = state + strlen("\"state\":\"");
    }
    size_t length = strcspn(word, "\".");
    if (length >= size) length = size - 1;
    memcpy(name, word, length);
    name[length] = '\0';
}

static void take(natsConnection *connection, natsSubscription *subscription, natsMsg *message, void *closure) {
    (void)connection, (void)subscription, (void)closure;
    double at = now();
    pthread_mutex_lock(&lock);
    if (count < MOST_EVENTS && strstr(natsMsg_GetData(message), job) != NULL) {
        name_of(message, events[count].name, sizeof events[count].name);
        events[count].at = at;
        if (strcmp(events[count++].name, "result") == 0) {
            has_ended = true;
            pthread_cond_signal(&changed);
        }
    }
    pthread_mutex_unlock(&lock);
    natsMsg_Destroy(message);
}

static void follow(natsConnection *connection, const char *prefix, long number) {
    char body[300], header[160];
    natsMsg *message = NULL;
    pthread_mutex_lock(&lock);
    count = 0;
    has_ended = false;
    snprintf(job, sizeof job, "%s-%07ld", prefix, number);
    pthread_mutex_unlock(&lock);
    int size = snprintf(body, sizeof body, "{\"task_id\":\"%s\",\"cmd\":[\"/bin/true\"],\"max_retries\":0}", job);
    snprintf(header, sizeof header, "sub:%s", job);
    check(natsMsg_Create(&message, "gpu.task.enqueue", NULL, body, size), "a message");
    check(natsMsgHeader_Set(message, "Nats-Msg-Id", header), "a header");
    double began = now();
    check(natsConnection_PublishMsg(connection, message), "a submission");
    natsMsg_Destroy(message);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += DEADLINE_SECONDS;
    pthread_mutex_lock(&lock);
    while (!has_ended) {
        if (pthread_cond_timedwait(&changed, &lock, &until) != 0) {
            fprintf(stderr, "trace: the result of %s did not come in %d s\n", job, DEADLINE_SECONDS);
            exit(75);
        }
    }
    printf("{\"seen\": [");
    for (int index = 0; index < count; index++)
        printf("%s[\"%s\", %.1f]", index ? ", " : "", events[index].name, events[index].at - began);
    printf("]}\n");
    pthread_mutex_unlock(&lock);
}

int main(int count_of_arguments, char **arguments) {
    long jobs = count_of_arguments == 4 ? strtol(arguments[3], NULL, 10) : 0;
    if (jobs < 1) {
        fprintf(stderr, "usage: trace URL PREFIX COUNT\n");
        return 64;
    }
    natsOptions *options = NULL;
    natsConnection *connection = NULL;
    natsSubscription *subscription = NULL;
    check(natsOptions_Create(&options), "options");
    check(natsOptions_SetURL(options, arguments[1]), "the address");
    check(natsOptions_SetSendAsap(options, true), "options");
    check(natsConnection_Connect(&connection, options), "the connection");
    check(natsConnection_Subscribe(&subscription, connection, "gpu.task.>", take, NULL), "the subscription");
    check(natsConnection_Flush(connection), "the subscription");
    for (long number = 0; number < jobs; number++) follow(connection, arguments[2], number);
    natsSubscription_Destroy(subscription);
    natsConnection_Destroy(connection);
    natsOptions_Destroy(options);
    nats_Close();
    return 0;
}
