/* A disk that fails on command, for one process: LD_PRELOAD this and name a folder in FAULT_FOLDER.

   Operations below that folder which change it are counted. From the one numbered FAULT_AT (from 1; 0: never) on all
   of them fail with "No space left on device" (FAULT_MODE=full), or that one is the last thing that the process
   does (FAULT_MODE=kill). fault_arm() sets both anew and returns the count so far. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long count, at = -1;
static atomic_int kills;

long fault_arm(long number, int kill_it) {
  kills = kill_it;
  at = number;
  return atomic_exchange(&count, 0);
}

static int fails(void) {
  if (at < 0) {
    const char *number = getenv("FAULT_AT"), *mode = getenv("FAULT_MODE");
    kills = mode && !strcmp(mode, "kill");
    at = number ? atol(number) : 0;
  }
  long now = atomic_fetch_add(&count, 1) + 1;
  if (at == 0 || now < at) return 0;
  if (kills) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }
  errno = ENOSPC;
  return 1;
}

static int inside(const char *path) {
  const char *folder = getenv("FAULT_FOLDER");
  char full[PATH_MAX];
  if (!folder || !path) return 0;
  if (path[0] != '/') {
    char here[PATH_MAX];
    if (!getcwd(here, sizeof here)) return 0;
    snprintf(full, sizeof full, "%s/%s", here, path);
    path = full;
  }
  size_t length = strlen(folder);
  return !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int handle_inside(int handle) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return inside(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int handle, const void *data, size_t size) {
  if (handle > 2 && handle_inside(handle) && fails()) return -1;
  return REAL(write)(handle, data, size);
}
ssize_t pwrite(int handle, const void *data, size_t size, off_t offset) {
  if (handle_inside(handle) && fails()) return -1;
  return REAL(pwrite)(handle, data, size, offset);
}
ssize_t pwrite64(int handle, const void *data, size_t size, off64_t offset) {
  if (handle_inside(handle) && fails()) return -1;
  return REAL(pwrite64)(handle, data, size, offset);
}
ssize_t writev(int handle, const struct iovec *parts, int number) {
  if (handle > 2 && handle_inside(handle) && fails()) return -1;
  return REAL(writev)(handle, parts, number);
}
ssize_t pwritev(int handle, const struct iovec *parts, int number, off_t offset) {
  if (handle_inside(handle) && fails()) return -1;
  return REAL(pwritev)(handle, parts, number, offset);
}
int fsync(int handle) {
  if (handle_inside(handle) && fails()) return -1;
  return REAL(fsync)(handle);
}
int fdatasync(int handle) {
  if (handle_inside(handle) && fails()) return -1;
  return REAL(fdatasync)(handle);
}
int mkdir(const char *path, mode_t mode) {
  if (inside(path) && access(path, F_OK) && fails()) return -1;
  return REAL(mkdir)(path, mode);
}
int rename(const char *from, const char *to) {
  /* A rename needs no room, but it is where a kill matters. */
  if (inside(to) && kills && fails()) return -1;
  return REAL(rename)(from, to);
}
int unlink(const char *path) {
  if (inside(path) && kills && fails()) return -1;
  return REAL(unlink)(path);
}
int rmdir(const char *path) {
  if (inside(path) && kills && fails()) return -1;
  return REAL(rmdir)(path);
}

#define OPEN(name)                                                             \
  int name(const char *path, int flags, ...) {                                 \
    mode_t mode = 0;                                                           \
    if (flags & (O_CREAT | O_TMPFILE)) {                                       \
      va_list rest;                                                            \
      va_start(rest, flags);                                                   \
      mode = va_arg(rest, mode_t);                                             \
      va_end(rest);                                                            \
    }                                                                          \
    if ((flags & O_CREAT) && inside(path) && access(path, F_OK) && fails())    \
      return -1;                                                               \
    return REAL(name)(path, flags, mode);                                      \
  }
OPEN(open)
OPEN(open64)
