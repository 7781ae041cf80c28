/* A service for Berth in C, with nothing but POSIX: one thread and one request for each connection. */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "sha256.h"

/* More than the gateway lets a request's head have. */
enum { LONGEST_HEAD = 32 * 1024 };

static const char *instance;
static char credential[13];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static const char *variable(const char *name) {
    const char *value = getenv(name);
    if (!value) {
        fprintf(stderr, "%s is not set\n", name);
        exit(1);
    }
    return value;
}

/* A credential is a file; its value never stands in an environment, an argument or a log. */
static void read_credential(void) {
    char path[4096];
    uint8_t value[SHA256_LONGEST], digest[32];
    snprintf(path, sizeof path, "%s/greeting", variable("CREDENTIALS_DIRECTORY"));
    FILE *file = fopen(path, "rb");
    if (!file)
        die(path);
    size_t length = fread(value, 1, sizeof value, file);
    fclose(file);
    sha256(value, length, digest);
    for (int i = 0; i < 6; i++)
        snprintf(credential + 2 * i, 3, "%02x", digest[i]);
}

/* The value of x-forwarded-for as JSON. The gateway writes an address there; whatever could end a text is left out. */
static void caller_as_json(const char *head, char *json, size_t size) {
    static const char name[] = "\r\nx-forwarded-for:";
    const char *line = strstr(head, "\r\n");
    while (line && strncasecmp(line, name, sizeof name - 1) != 0)
        line = strstr(line + 2, "\r\n");
    if (!line) {
        snprintf(json, size, "null");
        return;
    }
    const char *value = line + sizeof name - 1;
    value += strspn(value, " \t");
    snprintf(json, size, "\"%.*s\"", (int)strcspn(value, "\r\n\"\\"), value);
}

static void respond(int client, const char *status, const char *format, ...) {
    char body[512], response[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(body, sizeof body, format, values);
    va_end(values);
    int length = snprintf(response, sizeof response,
        "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\nconnection: close\r\n\r\n%s",
        status, strlen(body), body);
    for (int sent = 0; sent < length;) {
        ssize_t more = send(client, response + sent, (size_t)(length - sent), MSG_NOSIGNAL);
        if (more <= 0)
            return;
        sent += (int)more;
    }
}

static void answer(int client, const char *head) {
    char path[256] = "", caller[128];
    sscanf(head, "%*15s %255[^ ?\r\n]", path);
    if (strcmp(path, "/readyz") == 0) {
        respond(client, "200 OK", "{\"ready\":true}");
    } else if (strcmp(path, "/native/hello") == 0) {
        caller_as_json(head, caller, sizeof caller);
        respond(client, "200 OK", "{\"instance\":\"%s\",\"credential\":\"%s\",\"caller\":%s}", instance, credential, caller);
    } else {
        respond(client, "404 Not Found", "{\"error\":\"not found\"}");
    }
}

static void *serve(void *argument) {
    int client = (int)(intptr_t)argument;
    char head[LONGEST_HEAD + 1] = "";
    size_t length = 0;
    while (!strstr(head, "\r\n\r\n") && length < LONGEST_HEAD) {
        ssize_t more = recv(client, head + length, LONGEST_HEAD - length, 0);
        if (more <= 0)
            break;
        length += (size_t)more;
        head[length] = '\0';
    }
    if (strstr(head, "\r\n\r\n"))
        answer(client, head);
    close(client);
    return NULL;
}

static int listen_on(const char *host, const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (listener < 0 || inet_pton(AF_INET, host, &address.sin_addr) != 1)
        die(host);
    /* Without it, a restarted instance waits until the connections of the one before are forgotten. */
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 128) < 0)
        die(port);
    return listener;
}

static void end(int signal) {
    (void)signal;
    _exit(0);
}

int main(void) {
    /* Containers of one service share their environment, and have names of their own. */
    instance = getenv("BERTH_INSTANCE") ? getenv("BERTH_INSTANCE") : variable("HOSTNAME");
    read_credential();
    /* As the first process of a container it would not get a signal it has no handler for. */
    signal(SIGTERM, end);
    int listener = listen_on(variable("HOST"), variable("PORT"));
    struct timeval patience = {.tv_sec = 5};
    for (;;) {
        int client = accept(listener, NULL, NULL);
        pthread_t thread;
        if (client < 0)
            continue;
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)client) == 0)
            pthread_detach(thread);
        else
            close(client);
    }
}
