/* A disk that fails on demand, put between a process and libc by LD_PRELOAD.

   Every call that changes files below `root` is counted. At the n-th the process is killed, or
   the disk is full from then on, or the call fails once. At a kill the power may fail as well:
   files that were written and not fsynced are then empty, and names that were made, moved or
   removed in a directory that was not fsynced since are as they were before. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COUNT = 0, KILL = 1, TORN = 2, LOST = 3, FULL = 4, EIO_ONCE = 5 };
enum { MADE, MOVED, REMOVED };
#define ENTRIES 65536
#define PATH 1024

typedef struct { dev_t dev; ino_t ino; int fd; } Data;
typedef struct { int what; dev_t dev; ino_t ino; char *path, *from, *old; } Name;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH], stash[PATH];
static int mode = -1, files, names, stashed, dying;
static long at, calls;
static Data data[ENTRIES];
static Name name[ENTRIES];

#define REAL(result, call, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = dlsym(RTLD_NEXT, call)

static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_link)(const char *, const char *);

void disk_arm(const char *where, const char *keep, int how, long when) {
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_link = dlsym(RTLD_NEXT, "link");
    snprintf(root, PATH, "%s", where);
    snprintf(stash, PATH, "%s", keep);
    files = names = stashed = dying = 0;
    at = when, calls = 0, mode = how;
}

long disk_calls(void) { return calls; }
void disk_disarm(void) { mode = -1; }

static int below(const char *path) {
    size_t n = strlen(root);
    return mode >= 0 && !dying && !strncmp(path, root, n) && (path[n] == '/' || !path[n]);
}

static int full_path(int directory, const char *path, char *out) {
    char link[64], base[PATH];
    if (mode < 0) return 0;
    if (path && path[0] == '/') snprintf(out, PATH, "%s", path);
    else {
        ssize_t n;
        if (directory == AT_FDCWD) n = getcwd(base, PATH) ? (ssize_t)strlen(base) : -1;
        else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
            n = readlink(link, base, PATH - 1);
        }
        if (n < 0) return 0;
        base[n] = 0;
        if (path && *path) {
            if (snprintf(out, PATH, "%s/%s", base, path) >= PATH) abort();
        } else snprintf(out, PATH, "%s", base);
    }
    return below(out);
}

static char *new_stash(void) {
    char path[PATH + 32];
    snprintf(path, sizeof path, "%s/%d", stash, stashed++);
    return strdup(path);
}

static void parent_of(const char *path, dev_t *dev, ino_t *ino) {
    char parent[PATH];
    struct stat s;
    snprintf(parent, PATH, "%s", path);
    *strrchr(parent, '/') = 0;
    *dev = *ino = 0;
    if (!stat(parent, &s)) *dev = s.st_dev, *ino = s.st_ino;
}

static void remember(int what, const char *path, const char *from, char *old) {
    if (names == ENTRIES) abort();
    Name *n = &name[names++];
    n->what = what, n->path = strdup(path), n->from = from ? strdup(from) : NULL, n->old = old;
    parent_of(path, &n->dev, &n->ino);
}

static void written(int fd) {
    struct stat s;
    if (fstat(fd, &s) || !S_ISREG(s.st_mode)) return;
    for (int i = 0; i < files; i++)
        if (data[i].dev == s.st_dev && data[i].ino == s.st_ino) return;
    if (files == ENTRIES) abort();
    data[files++] = (Data){s.st_dev, s.st_ino, fcntl(fd, F_DUPFD_CLOEXEC, 100)};
}

static void synced(int fd) {
    struct stat s;
    if (fstat(fd, &s)) return;
    int kept = 0;
    for (int i = 0; i < files; i++)
        if (data[i].dev == s.st_dev && data[i].ino == s.st_ino) close(data[i].fd);
        else data[kept++] = data[i];
    files = kept, kept = 0;
    for (int i = 0; i < names; i++)
        if (name[i].dev != s.st_dev || name[i].ino != s.st_ino) name[kept++] = name[i];
    names = kept;
}

static void power_fails(void) {
    for (int i = 0; i < files; i++)
        if (ftruncate(data[i].fd, 0)) abort();
    if (mode != LOST) return;
    for (int i = names - 1; i >= 0; i--) {
        Name *n = &name[i];
        if (n->what == MADE) { char *to = new_stash(); real_rename(n->path, to); }
        if (n->what == MOVED) real_rename(n->path, n->from);
        if (n->old) real_rename(n->old, n->path);
    }
}

/* Called with the lock held before each change; an errno if the call must fail. */
static int fault(int takes_space) {
    calls++;
    if (mode == COUNT || calls < at) return 0;
    if (mode == FULL) return takes_space ? ENOSPC : 0;
    if (mode == EIO_ONCE) return calls == at ? EIO : 0;
    dying = 1;
    if (mode != KILL) power_fails();
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

#define GUARD(space) \
    pthread_mutex_lock(&lock); \
    int failed = fault(space); \
    if (failed) { pthread_mutex_unlock(&lock); errno = failed; return -1; }
#define DONE(result) \
    do { int e = errno; pthread_mutex_unlock(&lock); errno = e; return result; } while (0)

static int opened(int directory, const char *path, int flags, mode_t bits) {
    REAL(int, "openat", int, const char *, int, ...);
    char full[PATH];
    if (!(flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) || !full_path(directory, path, full))
        return real(directory, path, flags, bits);
    GUARD(flags & O_CREAT)
    int fresh = (flags & O_CREAT) && access(full, F_OK);
    int fd = real(directory, path, flags, bits);
    if (fd >= 0 && fresh) remember(MADE, full, NULL, NULL);
    if (fd >= 0 && (flags & O_TRUNC)) written(fd);
    DONE(fd);
}

#define OPEN(NAME, FIRST, DIRECTORY) \
    int NAME(FIRST const char *path, int flags, ...) { \
        mode_t bits = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; va_start(rest, flags); bits = va_arg(rest, mode_t); va_end(rest); \
        } \
        return opened(DIRECTORY, path, flags, bits); \
    }
#define COMMA ,
OPEN(open, , AT_FDCWD)
OPEN(open64, , AT_FDCWD)
OPEN(openat, int directory COMMA, directory)
OPEN(openat64, int directory COMMA, directory)

/* A write that is killed has written half of what was asked. */
#define WRITE(NAME, DECLARED, TYPES, PASSED, HALF) \
    ssize_t NAME DECLARED { \
        REAL(ssize_t, #NAME, TYPES); \
        char full[PATH]; \
        if (!full_path(fd, NULL, full)) return real PASSED; \
        pthread_mutex_lock(&lock); \
        written(fd); \
        if (calls + 1 == at && mode == KILL) { ssize_t half = real HALF; (void)half; } \
        int failed = fault(1); \
        if (failed) { pthread_mutex_unlock(&lock); errno = failed; return -1; } \
        ssize_t result = real PASSED; \
        DONE(result); \
    }
#define W3 int, const void *, size_t
#define W4 int, const void *, size_t, off_t
#define S4 int, int, off_t *, size_t
WRITE(write, (int fd, const void *bytes, size_t n), W3, (fd, bytes, n), (fd, bytes, n / 2))
WRITE(pwrite, (int fd, const void *bytes, size_t n, off_t o), W4, (fd, bytes, n, o),
      (fd, bytes, n / 2, o))
WRITE(pwrite64, (int fd, const void *bytes, size_t n, off_t o), W4, (fd, bytes, n, o),
      (fd, bytes, n / 2, o))
WRITE(sendfile, (int fd, int in, off_t *o, size_t n), S4, (fd, in, o, n), (fd, in, o, n / 2))

#define SYNC(NAME) \
    int NAME(int fd) { \
        REAL(int, #NAME, int); \
        char full[PATH]; \
        if (!full_path(fd, NULL, full)) return real(fd); \
        GUARD(0) \
        int result = real(fd); \
        if (!result) synced(fd); \
        DONE(result); \
    }
SYNC(fsync)
SYNC(fdatasync)

static void follow(const char *from, const char *to) {
    size_t n = strlen(from);
    for (int i = 0; i < names; i++)
        for (int side = 0; side < 2; side++) {
            char **path = side ? &name[i].from : &name[i].path, moved[2 * PATH];
            if (*path && !strncmp(*path, from, n) && (*path)[n] == '/') {
                snprintf(moved, sizeof moved, "%s%s", to, *path + n);
                *path = strdup(moved);
            }
        }
}

int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    char a[PATH], b[PATH];
    if (!full_path(from_fd, from, a) | !full_path(to_fd, to, b))
        return real(from_fd, from, to_fd, to);
    GUARD(0)
    struct stat s;
    char *old = NULL;
    if (mode == LOST && !lstat(b, &s) && !S_ISDIR(s.st_mode)) {
        old = new_stash();
        if (real_link(b, old)) abort();
    }
    int result = real(from_fd, from, to_fd, to);
    if (!result) follow(a, b), remember(MOVED, b, a, old);
    DONE(result);
}
int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    char b[PATH];
    if (!full_path(to_fd, to, b)) return real(from_fd, from, to_fd, to, flags);
    GUARD(1)
    int result = real(from_fd, from, to_fd, to, flags);
    if (!result) remember(MADE, b, NULL, NULL);
    DONE(result);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int symlinkat(const char *target, int directory, const char *path) {
    REAL(int, "symlinkat", const char *, int, const char *);
    char b[PATH];
    if (!full_path(directory, path, b)) return real(target, directory, path);
    GUARD(1)
    int result = real(target, directory, path);
    if (!result) remember(MADE, b, NULL, NULL);
    DONE(result);
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

int mkdirat(int directory, const char *path, mode_t bits) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    char b[PATH];
    if (!full_path(directory, path, b)) return real(directory, path, bits);
    GUARD(1)
    int result = real(directory, path, bits);
    if (!result) remember(MADE, b, NULL, NULL);
    DONE(result);
}
int mkdir(const char *path, mode_t bits) { return mkdirat(AT_FDCWD, path, bits); }

int unlinkat(int directory, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    char b[PATH];
    if (!full_path(directory, path, b)) return real(directory, path, flags);
    GUARD(0)
    char *old = NULL;
    if (mode == LOST) {
        old = new_stash();
        if (flags & AT_REMOVEDIR ? mkdir(old, 0777) : real_link(b, old)) old = NULL;
    }
    int result = real(directory, path, flags);
    if (!result && old) remember(REMOVED, b, NULL, old);
    DONE(result);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    struct stat s;
    return !lstat(path, &s) && S_ISDIR(s.st_mode) ? rmdir(path) : unlink(path);
}
