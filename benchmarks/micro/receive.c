/* What receiving a body costs at least: recv, or with -DTLS SSL_read, into 1 MiB, in one blocking thread.
 *
 * receive PORT PATH prints the bytes after the headers and the CPU seconds from connecting to the end of the body.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef TLS
#include <openssl/ssl.h>

static SSL *tls;

static int begin(int fd)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) || !(tls = SSL_new(context)))
        return -1;
    SSL_set_fd(tls, fd);
    return SSL_connect(tls) == 1 ? 0 : -1;
}

static long take(int fd, char *buffer, size_t size)
{
    (void)fd;
    return SSL_read(tls, buffer, (int)size);
}

static long give(int fd, const char *data, size_t size)
{
    (void)fd;
    return SSL_write(tls, data, (int)size);
}
#else
static int begin(int fd)
{
    (void)fd;
    return 0;
}

static long take(int fd, char *buffer, size_t size)
{
    return recv(fd, buffer, size, 0);
}

static long give(int fd, const char *data, size_t size)
{
    return send(fd, data, size, 0);
}
#endif

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int main(int count, char **arguments)
{
    static char buffer[(1 << 20) + 1], request[4096];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    long long bytes = 0;
    long size, used = 0;
    char *body;
    if (count != 3)
        return 2;
    address.sin_port = htons((uint16_t)atoi(arguments[1]));
    double started = cpu_seconds();
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) || begin(fd))
        return 1;
    size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
                    arguments[2]);
    if (size >= (long)sizeof request || give(fd, request, (size_t)size) != size)
        return 1;
    do { /* the headers, and what comes with them */
        size = take(fd, buffer + used, sizeof buffer - 1 - (size_t)used);
        if (size <= 0)
            return 1;
        used += size;
        buffer[used] = 0;
    } while (!(body = strstr(buffer, "\r\n\r\n")));
    if (strncmp(buffer, "HTTP/1.1 200 ", 13))
        return 1;
    bytes = used - (body + 4 - buffer);
    while ((size = take(fd, buffer, sizeof buffer - 1)) > 0)
        bytes += size;
    printf("%lld %.9f\n", bytes, cpu_seconds() - started);
    close(fd);
    return 0;
}
