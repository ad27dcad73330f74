/* Faults of a machine, for processes that load this library first (LD_PRELOAD), switched while they run.

   $FAULTS_CONTROL names a file of three 64-bit integers in this machine's order, which `faults.py` writes:
   seconds by which Python's wall clock is off; milliseconds that each fsync under $FAULTS_FOLDER takes longer; n, where
   every n-th of these fails with EIO (0: none). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *control;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("FAULTS_CONTROL");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, 3 * sizeof *control, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED) control = page;
}

static int is_python(void *caller) {
    Dl_info of;
    if (!dladdr(caller, &of) || !of.dli_fname) return 0;
    const char *slash = strrchr(of.dli_fname, '/'), *name = slash ? slash + 1 : of.dli_fname;
    return !strncmp(name, "libpython", 9) || !strncmp(name, "python", 6);
}

/* Only what Python asks for: Ray's own threads hand deadlines by this clock to the kernel, whose clock is not off. */
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME && control && control[0] && is_python(__builtin_return_address(0)))
        now->tv_sec += control[0];
    return failed;
}

int fsync(int file) {
    static int (*real)(int);
    static int calls;
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    const char *folder = getenv("FAULTS_FOLDER");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = control && folder ? readlink(link, path, sizeof path - 1) : 0;
    if (length > 0) {
        path[length] = 0;
        if (!strncmp(path, folder, strlen(folder))) {
            usleep(control[1] * 1000);
            if (control[2] && ++calls % control[2] == 0) {
                errno = EIO;
                return -1;
            }
        }
    }
    return real(file);
}
