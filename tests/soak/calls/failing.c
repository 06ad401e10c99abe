/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loaded into an engine by tests/soak/calls.rs: counts the calls by which the
 * engine changes what is below one directory, or opens it, and has one of them
 * fail, the n-th of all threads, or all from there on. What a test and this
 * share is a page of a file.
 *
 * BERTH_FAILING_PAGE names the file, BERTH_FAILING_BELOW the directory.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

struct page {
    /* Which call is to fail, from 1; none at 0. */
    _Atomic uint32_t nth;
    int32_t error;
    /* Only calls that may need room on the disk. */
    uint32_t growing;
    /* All that follow fail as well. */
    uint32_t lasting;
    _Atomic uint32_t count;
    /* What has failed, as a string; empty before. */
    char failed[236];
};

static struct page *page;
static const char *below;

static void begin(void) __attribute__((constructor));

static void begin(void)
{
    const char *name = getenv("BERTH_FAILING_PAGE");
    below = getenv("BERTH_FAILING_BELOW");
    if (!name || !below)
        return;
    int fd = open(name, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *at = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED)
        page = at;
}

/* Whether the file of `fd`, or `path` from there, is below the directory. */
static int concerns(int fd, const char *path)
{
    char link[32], place[PATH_MAX];
    size_t length = strlen(below);
    if (path && path[0] == '/')
        return strncmp(path, below, length) == 0;
    if (fd < 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t got = readlink(link, place, sizeof place - 1);
    if (got < 0)
        return 0;
    place[got] = 0;
    return strncmp(place, below, length) == 0;
}

/* Whether this call is to fail; errno says how. */
static int fails(const char *call, int grows, int fd, const char *path)
{
    int before = errno;
    if (!page || !page->nth || (page->growing && !grows) || !concerns(fd, path)) {
        errno = before;
        return 0;
    }
    errno = before;
    uint32_t nth = page->nth, now = atomic_fetch_add(&page->count, 1) + 1;
    if (!nth || now < nth || (now > nth && !page->lasting))
        return 0;
    if (now == nth)
        snprintf(page->failed, sizeof page->failed, "%s %s", call, path ? path : "");
    errno = page->error;
    return 1;
}

#define CALL(type, name, grows, fd, path, types, values)        \
    type name types                                             \
    {                                                           \
        static type (*next) types;                              \
        if (!next)                                              \
            next = (type (*) types)dlsym(RTLD_NEXT, #name);     \
        return fails(#name, grows, fd, path) ? -1 : next values; \
    }

CALL(ssize_t, write, 1, fd, NULL, (int fd, const void *bytes, size_t size), (fd, bytes, size))
CALL(ssize_t, writev, 1, fd, NULL, (int fd, const struct iovec *parts, int count), (fd, parts, count))
CALL(ssize_t, pwrite, 1, fd, NULL, (int fd, const void *bytes, size_t size, off_t at), (fd, bytes, size, at))
CALL(ssize_t, pwrite64, 1, fd, NULL, (int fd, const void *bytes, size_t size, off64_t at), (fd, bytes, size, at))
CALL(int, ftruncate, 1, fd, NULL, (int fd, off_t size), (fd, size))
CALL(int, ftruncate64, 1, fd, NULL, (int fd, off64_t size), (fd, size))
CALL(int, fsync, 1, fd, NULL, (int fd), (fd))
CALL(int, fdatasync, 1, fd, NULL, (int fd), (fd))
CALL(int, syncfs, 1, fd, NULL, (int fd), (fd))
CALL(int, mkdir, 1, -1, path, (const char *path, mode_t mode), (path, mode))
CALL(int, mkdirat, 1, dir, path, (int dir, const char *path, mode_t mode), (dir, path, mode))
CALL(int, mknodat, 1, dir, path, (int dir, const char *path, mode_t mode, dev_t device), (dir, path, mode, device))
CALL(int, symlinkat, 1, dir, path, (const char *target, int dir, const char *path), (target, dir, path))
CALL(int, linkat, 1, dir, path, (int from, const char *old, int dir, const char *path, int flags),
     (from, old, dir, path, flags))
CALL(int, rename, 1, -1, path, (const char *old, const char *path), (old, path))
CALL(int, renameat, 1, dir, path, (int from, const char *old, int dir, const char *path), (from, old, dir, path))
CALL(int, renameat2, 1, dir, path, (int from, const char *old, int dir, const char *path, unsigned flags),
     (from, old, dir, path, flags))
CALL(int, fsetxattr, 1, fd, NULL, (int fd, const char *name, const void *value, size_t size, int flags),
     (fd, name, value, size, flags))
CALL(int, unlink, 0, -1, path, (const char *path), (path))
CALL(int, unlinkat, 0, dir, path, (int dir, const char *path, int flags), (dir, path, flags))
CALL(int, fchown, 0, fd, NULL, (int fd, uid_t user, gid_t group), (fd, user, group))
CALL(int, fchmod, 0, fd, NULL, (int fd, mode_t mode), (fd, mode))
CALL(int, futimens, 0, fd, NULL, (int fd, const struct timespec times[2]), (fd, times))

CALL(int, fchownat, 0, dir, path, (int dir, const char *path, uid_t user, gid_t group, int flags),
     (dir, path, user, group, flags))
CALL(int, utimensat, 0, dir, path, (int dir, const char *path, const struct timespec times[2], int flags),
     (dir, path, times, flags))

#define OPEN(name, values, fd, ...)                             \
    int name(__VA_ARGS__, int flags, ...)                       \
    {                                                           \
        static int (*next)(__VA_ARGS__, int, ...);              \
        mode_t mode = 0;                                        \
        if (!next)                                              \
            next = (int (*)(__VA_ARGS__, int, ...))dlsym(RTLD_NEXT, #name); \
        if (flags & (O_CREAT | __O_TMPFILE)) {                  \
            va_list more;                                       \
            va_start(more, flags);                              \
            mode = va_arg(more, mode_t);                        \
            va_end(more);                                       \
        }                                                       \
        int grows = (flags & (O_CREAT | __O_TMPFILE)) != 0;     \
        return fails(#name, grows, fd, path) ? -1 : next values; \
    }

OPEN(open, (path, flags, mode), -1, const char *path)
OPEN(open64, (path, flags, mode), -1, const char *path)
OPEN(openat, (dir, path, flags, mode), dir, int dir, const char *path)
OPEN(openat64, (dir, path, flags, mode), dir, int dir, const char *path)

/* For openat2, which has no function of its own. */
long syscall(long number, ...)
{
    static long (*next)(long, ...);
    long a[6];
    va_list more;
    if (!next)
        next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    va_start(more, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(more, long);
    va_end(more);
    if (number == SYS_openat2) {
        /* The first field of struct open_how, linux/openat2.h. */
        int grows = (*(const uint64_t *)a[2] & O_CREAT) != 0;
        if (fails("openat2", grows, (int)a[0], (const char *)a[1]))
            return -1;
    }
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
