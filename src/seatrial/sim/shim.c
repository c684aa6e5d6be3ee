/* Virtual clocks and entropy for one process, preloaded; seatrial.sim.shim steers it through `seatrial_shim`.
 *
 * Python code can be given virtual time by patching modules; compiled code (Cython, OpenSSL, a C extension that calls
 * gettimeofday) and names that were imported early can not.  While `active` is 0 everything is the system's own.
 * The clock is that of seatrial.sim.clocks.HostClock, in whole microseconds, so that C and Python always agree.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { ACTIVE, WORLD_US, SINCE_US, LOCAL_US, DRIFT_PPM, WALL_US, HOST, CLOCK_READS, ENTROPY_READS, SLEEPS, FIELDS = 16, HOSTS = 256 };

/* The layout is known to shim.py: FIELDS numbers, then one state of the generator for each host. */
volatile int64_t seatrial_shim[FIELDS + HOSTS];

static int64_t local_us(void) {
    int64_t elapsed = seatrial_shim[WORLD_US] - seatrial_shim[SINCE_US];
    int64_t product = elapsed * seatrial_shim[DRIFT_PPM];
    int64_t drift = product / 1000000;
    if (product % 1000000 < 0) drift--; /* Python rounds towards minus infinity */
    return seatrial_shim[LOCAL_US] + elapsed + drift;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    if (!seatrial_shim[ACTIVE]) return syscall(SYS_clock_gettime, id, now);
    seatrial_shim[CLOCK_READS]++;
    int64_t us = local_us();
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) us += seatrial_shim[WALL_US];
    now->tv_sec = us / 1000000;
    now->tv_nsec = us % 1000000 * 1000;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    if (!seatrial_shim[ACTIVE]) return syscall(SYS_gettimeofday, now, zone);
    struct timespec read;
    clock_gettime(CLOCK_REALTIME, &read);
    now->tv_sec = read.tv_sec;
    now->tv_usec = read.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec read;
    clock_gettime(CLOCK_REALTIME, &read);
    if (out) *out = read.tv_sec;
    return read.tv_sec;
}

static void fill(unsigned char *bytes, size_t count) { /* splitmix64 */
    volatile int64_t *state = &seatrial_shim[FIELDS + seatrial_shim[HOST] % HOSTS];
    seatrial_shim[ENTROPY_READS]++;
    while (count--) {
        uint64_t z = (uint64_t)*state + 0x9E3779B97F4A7C15ull;
        *state = (int64_t)z;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        *bytes++ = (unsigned char)(z ^ (z >> 31));
    }
}

ssize_t getrandom(void *bytes, size_t count, unsigned flags) {
    if (!seatrial_shim[ACTIVE]) return syscall(SYS_getrandom, bytes, count, flags);
    fill(bytes, count);
    return (ssize_t)count;
}

int getentropy(void *bytes, size_t count) {
    if (!seatrial_shim[ACTIVE]) return syscall(SYS_getrandom, bytes, count, 0) == (long)count ? 0 : -1;
    fill(bytes, count);
    return 0;
}

int nanosleep(const struct timespec *wanted, struct timespec *left) {
    if (!seatrial_shim[ACTIVE]) return syscall(SYS_nanosleep, wanted, left);
    seatrial_shim[SLEEPS]++;
    errno = EINVAL;
    return -1;
}

int clock_nanosleep(clockid_t id, int flags, const struct timespec *wanted, struct timespec *left) {
    if (!seatrial_shim[ACTIVE]) return syscall(SYS_clock_nanosleep, id, flags, wanted, left) ? errno : 0;
    seatrial_shim[SLEEPS]++;
    return EINVAL;
}
