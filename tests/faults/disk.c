/* A disk that fails on demand, put between a process and libc by LD_PRELOAD.

   Every call that changes files below `root` is counted. At the n-th the process is killed, or
   the disk is full from then on, or the call fails once. At a kill the power may fail as well:
   files that were written and not fsynced are then empty, and names that were made, moved or
   removed in a directory that was not fsynced since are as they were before. An heir is a process
   that goes on where another one was killed while the power stayed: what that one had not fsynced
   is written to `stash` at its death, and whoever arms the disk next can lose it, too.

   DISK_ROOT and DISK_LACKS, a list of links, symlinks, locks, renames (those that replace nothing)
   directories (fsync of them) and writing, make a disk below that root which cannot do these. */
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
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COUNT = 0, KILL = 1, TORN = 2, LOST = 3, FULL = 4, EIO_ONCE = 5, HEIR = 6 };
enum { MADE, MOVED, REMOVED };
#define ENTRIES 65536
#define PATH 1024

typedef struct { dev_t dev; ino_t ino; int fd; } Data;
typedef struct { int what; dev_t dev; ino_t ino; char *path, *from, *old; } Name;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH], stash[PATH], poor[PATH], lack[PATH];
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

static void inherit(void);
static void power_fails(void);

void disk_arm(const char *where, const char *keep, int how, long when) {
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_link = dlsym(RTLD_NEXT, "link");
    snprintf(root, PATH, "%s", where);
    snprintf(stash, PATH, "%s", keep);
    files = names = stashed = dying = 0;
    inherit();
    at = when, calls = 0, mode = how;
}

/* The power fails now, whatever was asked for. */
void disk_fail(void) {
    dying = 1;
    power_fails();
    kill(getpid(), SIGKILL);
}

__attribute__((constructor)) static void begin(void) {
    if (getenv("DISK_ROOT")) snprintf(poor, PATH, "%s", getenv("DISK_ROOT"));
    if (getenv("DISK_LACKS")) snprintf(lack, PATH, "%s", getenv("DISK_LACKS"));
}

long disk_calls(void) { return calls; }
void disk_disarm(void) { mode = -1; }

static int under(const char *top, const char *path) {
    size_t n = strlen(top);
    return !strncmp(path, top, n) && (path[n] == '/' || !path[n]);
}

static int resolved(int directory, const char *path, char *out) {
    char link[64], base[PATH];
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
    return 1;
}

static int full_path(int directory, const char *path, char *out) {
    return mode >= 0 && !dying && resolved(directory, path, out) && under(root, out);
}

static int lacks(const char *what, int directory, const char *path) {
    char full[PATH], said[PATH + 2], word[64];
    if (!poor[0]) return 0;
    snprintf(said, sizeof said, " %s ", lack);
    snprintf(word, sizeof word, " %s ", what);
    return strstr(said, word) && resolved(directory, path, full) && under(poor, full);
}
#define UNLESS_LACKED(what, directory, path, failure) \
    if (lacks(what, directory, path)) { errno = failure; return -1; }

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

/* What is not on disk at a death: dirty files, under a name of the stash, and names. */
static void bequeath(void) {
    char path[PATH + 32], from[64];
    snprintf(path, sizeof path, "%s/heir", stash);
    FILE *will = fopen(path, "w");
    if (!will) abort();
    for (int i = 0; i < files; i++) {
        char *kept = new_stash();
        snprintf(from, sizeof from, "/proc/self/fd/%d", data[i].fd);
        if (!linkat(AT_FDCWD, from, AT_FDCWD, kept, AT_SYMLINK_FOLLOW))
            fprintf(will, "data\t%s\n", kept);
    }
    for (int i = 0; i < names; i++) {
        Name *n = &name[i];
        fprintf(will, "name\t%d\t%lu\t%lu\t%s\t%s\t%s\n", n->what, (unsigned long)n->dev,
                (unsigned long)n->ino, n->path, n->from ? n->from : "-", n->old ? n->old : "-");
    }
    fprintf(will, "stashed\t%d\n", stashed);
    fclose(will);
}

static void inherit(void) {
    char path[PATH + 32], line[4 * PATH];
    snprintf(path, sizeof path, "%s/heir", stash);
    FILE *will = fopen(path, "r");
    if (!will) return;
    while (fgets(line, sizeof line, will)) {
        char a[PATH], b[PATH], c[PATH];
        unsigned long dev, ino;
        int what;
        struct stat s;
        if (sscanf(line, "data\t%1023[^\t\n]", a) == 1) {
            int fd = open(a, O_WRONLY);
            if (fd < 0 || fstat(fd, &s) || files == ENTRIES) abort();
            data[files++] = (Data){s.st_dev, s.st_ino, fcntl(fd, F_DUPFD_CLOEXEC, 100)};
            close(fd);
        } else if (sscanf(line, "name\t%d\t%lu\t%lu\t%1023[^\t]\t%1023[^\t]\t%1023[^\t\n]",
                          &what, &dev, &ino, a, b, c) == 6) {
            if (names == ENTRIES) abort();
            name[names++] = (Name){what, dev, ino, strdup(a), strcmp(b, "-") ? strdup(b) : NULL,
                                   strcmp(c, "-") ? strdup(c) : NULL};
        } else sscanf(line, "stashed\t%d", &stashed);
    }
    fclose(will);
    real_unlink(path);
}

/* Called with the lock held before each change; an errno if the call must fail. */
static int fault(int takes_space) {
    calls++;
    if (mode == COUNT || calls < at) return 0;
    if (mode == FULL) return takes_space ? ENOSPC : 0;
    if (mode == EIO_ONCE) return calls == at ? EIO : 0;
    dying = 1;
    if (mode == HEIR) bequeath();
    else if (mode != KILL) power_fails();
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
    if (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
        UNLESS_LACKED("writing", directory, path, EACCES)
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
        if (calls + 1 == at && (mode == KILL || mode == HEIR)) { ssize_t half = real HALF; (void)half; } \
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
        struct stat what; \
        if (!fstat(fd, &what) && S_ISDIR(what.st_mode)) \
            UNLESS_LACKED("directories", fd, NULL, EINVAL) \
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
    UNLESS_LACKED("writing", to_fd, to, EACCES)
    if (!full_path(from_fd, from, a) | !full_path(to_fd, to, b))
        return real(from_fd, from, to_fd, to);
    GUARD(0)
    struct stat s;
    char *old = NULL;
    if ((mode == LOST || mode == HEIR) && !lstat(b, &s) && !S_ISDIR(s.st_mode)) {
        old = new_stash();
        if (real_link(b, old)) abort();
    }
    int result = real(from_fd, from, to_fd, to);
    if (!result) follow(a, b), remember(MOVED, b, a, old);
    DONE(result);
}
int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

/* As those ask for it who want nothing replaced. */
int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    char a[PATH], b[PATH];
    UNLESS_LACKED("renames", to_fd, to, EINVAL)
    if (!full_path(from_fd, from, a) | !full_path(to_fd, to, b))
        return real(from_fd, from, to_fd, to, flags);
    GUARD(0)
    int result = real(from_fd, from, to_fd, to, flags);
    if (!result) follow(a, b), remember(MOVED, b, a, NULL);
    DONE(result);
}

int flock(int fd, int how) {
    REAL(int, "flock", int, int);
    UNLESS_LACKED("locks", fd, NULL, ENOSYS)
    return real(fd, how);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    char b[PATH];
    UNLESS_LACKED("links", to_fd, to, EPERM)
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
    UNLESS_LACKED("symlinks", directory, path, EPERM)
    UNLESS_LACKED("writing", directory, path, EACCES)
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
    UNLESS_LACKED("writing", directory, path, EACCES)
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
    UNLESS_LACKED("writing", directory, path, EACCES)
    if (!full_path(directory, path, b)) return real(directory, path, flags);
    GUARD(0)
    char *old = NULL;
    if (mode == LOST || mode == HEIR) {
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
