/* Every third fsync of a file under $FLAKY_FOLDER fails with EIO, as on network storage with a bad day. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fsync(int descriptor) {
    static int calls = 0;
    static int (*real)(int) = NULL;
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    const char *folder = getenv("FLAKY_FOLDER");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (folder && length > 0) {
        path[length] = 0;
        if (strncmp(path, folder, strlen(folder)) == 0 && ++calls % 3 == 0) {
            errno = EIO;
            return -1;
        }
    }
    return real(descriptor);
}
