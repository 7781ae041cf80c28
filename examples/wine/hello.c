/* A service for Berth in C for Windows, with nothing but what Windows has: one thread and one request for each connection. */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#include <bcrypt.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* More than the gateway lets a request's head have. */
enum { LONGEST_HEAD = 32 * 1024 };

static const char *instance;
static char credential[13];

static void die(const char *what) {
    fprintf(stderr, "%s: error %lu\n", what, GetLastError());
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

/* A credential is a file; its value never stands in an environment, an argument or a log. Wine shows the root of the file
   system as drive Z. */
static void read_credential(void) {
    char path[4096];
    UCHAR value[1024], digest[32];
    snprintf(path, sizeof path, "Z:%s/greeting", variable("CREDENTIALS_DIRECTORY"));
    FILE *file = fopen(path, "rb");
    if (!file)
        die(path);
    ULONG length = (ULONG)fread(value, 1, sizeof value, file);
    fclose(file);
    BCRYPT_ALG_HANDLE sha256;
    if (BCryptOpenAlgorithmProvider(&sha256, BCRYPT_SHA256_ALGORITHM, NULL, 0) != 0
        || BCryptHash(sha256, NULL, 0, value, length, digest, sizeof digest) != 0)
        die("SHA-256");
    for (int i = 0; i < 6; i++)
        snprintf(credential + 2 * i, 3, "%02x", digest[i]);
}

/* The value of x-forwarded-for as JSON. The gateway writes an address there; whatever could end a text is left out. */
static void caller_as_json(const char *head, char *json, size_t size) {
    static const char name[] = "\r\nx-forwarded-for:";
    const char *line = strstr(head, "\r\n");
    while (line && _strnicmp(line, name, sizeof name - 1) != 0)
        line = strstr(line + 2, "\r\n");
    if (!line) {
        snprintf(json, size, "null");
        return;
    }
    const char *value = line + sizeof name - 1;
    value += strspn(value, " \t");
    snprintf(json, size, "\"%.*s\"", (int)strcspn(value, "\r\n\"\\"), value);
}

static void respond(SOCKET client, const char *status, const char *format, ...) {
    char body[512], response[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(body, sizeof body, format, values);
    va_end(values);
    int length = snprintf(response, sizeof response,
        "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %u\r\nconnection: close\r\n\r\n%s",
        status, (unsigned)strlen(body), body);
    for (int sent = 0; sent < length;) {
        int more = send(client, response + sent, length - sent, 0);
        if (more <= 0)
            return;
        sent += more;
    }
}

static void answer(SOCKET client, const char *head) {
    char path[256] = "", caller[128];
    sscanf(head, "%*15s %255[^ ?\r\n]", path);
    if (strcmp(path, "/readyz") == 0) {
        respond(client, "200 OK", "{\"ready\":true}");
    } else if (strcmp(path, "/wine/hello") == 0) {
        caller_as_json(head, caller, sizeof caller);
        respond(client, "200 OK", "{\"instance\":\"%s\",\"credential\":\"%s\",\"caller\":%s}", instance, credential, caller);
    } else {
        respond(client, "404 Not Found", "{\"error\":\"not found\"}");
    }
}

static DWORD WINAPI serve(LPVOID argument) {
    SOCKET client = (SOCKET)(uintptr_t)argument;
    char head[LONGEST_HEAD + 1] = "";
    int length = 0;
    while (!strstr(head, "\r\n\r\n") && length < LONGEST_HEAD) {
        int more = recv(client, head + length, LONGEST_HEAD - length, 0);
        if (more <= 0)
            break;
        length += more;
        head[length] = '\0';
    }
    if (strstr(head, "\r\n\r\n"))
        answer(client, head);
    /* Closed at once, what was sent last might be lost. */
    shutdown(client, SD_SEND);
    closesocket(client);
    return 0;
}

static SOCKET listen_on(const char *host, const char *port) {
    WSADATA data;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((u_short)atoi(port))};
    if (WSAStartup(MAKEWORD(2, 2), &data) != 0)
        die("Winsock");
    SOCKET listener = socket(AF_INET, SOCK_STREAM, 0);
    BOOL yes = TRUE;
    if (listener == INVALID_SOCKET || inet_pton(AF_INET, host, &address.sin_addr) != 1)
        die(host);
    /* On Linux, without it, a restarted instance waits until the connections of the one before are forgotten. */
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, (const char *)&yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 128) != 0)
        die(port);
    return listener;
}

int main(void) {
    /* Containers of one service share their environment, and have names of their own. */
    instance = getenv("BERTH_INSTANCE") ? getenv("BERTH_INSTANCE") : variable("HOSTNAME");
    read_credential();
    SOCKET listener = listen_on(variable("HOST"), variable("PORT"));
    DWORD patience = 5000;
    for (;;) {
        SOCKET client = accept(listener, NULL, NULL);
        if (client == INVALID_SOCKET)
            continue;
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, (const char *)&patience, sizeof patience);
        HANDLE thread = CreateThread(NULL, 0, serve, (LPVOID)(uintptr_t)client, 0, NULL);
        if (thread)
            CloseHandle(thread);
        else
            closesocket(client);
    }
}
