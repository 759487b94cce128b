/* Preloaded into a program, lets its wall clock step while it runs: the machine's own is never touched. CLOCK_STEP names a
 * file whose first eight bytes are the step in seconds, read at each question. The clocks that cannot be set stay as they are.
 *
 * Who asks through the C library gets the functions below. Rust's rustix calls the vDSO of the kernel by itself; it finds
 * it through getauxval, and is shown an image with two symbols instead, which lead here. */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#if defined(__aarch64__)
#define CLOCK "__kernel_clock_gettime"
#define CPU "__kernel_getcpu"
#else
#define CLOCK "__vdso_clock_gettime"
#define CPU "__vdso_getcpu"
#endif

static volatile int64_t *step;

/* What every vDSO has, as far as its readers look (ELF specification, "Hash Table"): one bucket, two symbols, no versions. */
struct image {
    Elf64_Ehdr head;
    Elf64_Phdr parts[2];
    Elf64_Dyn dynamic[5];
    Elf64_Sym symbols[3];
    uint32_t hash[6];
    char strings[1 + sizeof CLOCK + sizeof CPU];
};

static struct image *image;

/* As the vDSO: 0, or the negative number of the error. */
static int ask(clockid_t clock, struct timespec *time)
{
    long answer;
#if defined(__aarch64__)
    register long number __asm__("x8") = SYS_clock_gettime, first __asm__("x0") = clock, second __asm__("x1") = (long)time;
    __asm__ volatile("svc 0" : "+r"(first) : "r"(number), "r"(second) : "memory");
    answer = first;
#else
    __asm__ volatile("syscall" : "=a"(answer) : "a"(SYS_clock_gettime), "D"((long)clock), "S"(time) : "rcx", "r11", "memory");
#endif
    if (answer == 0 && step && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI))
        time->tv_sec += *step;
    return (int)answer;
}

static int ask_cpu(unsigned *cpu, unsigned *node, void *unused)
{
    return (int)syscall(SYS_getcpu, cpu, node, unused);
}

static Elf64_Sym symbol(uint32_t name, uintptr_t distance)
{
    return (Elf64_Sym){
        .st_name = name, .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC), .st_shndx = 1, .st_value = distance};
}

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("CLOCK_STEP");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *shared = mmap(NULL, sizeof *step, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    /* Below every function, so that its distance is no negative number. */
    void *low = mmap((void *)0x10000000, sizeof *image, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || low == MAP_FAILED)
        _exit(98);
    struct image *made = low;
    /* The end of all addresses of programs: no function lies behind it. */
    uintptr_t base = (uintptr_t)low, end = (uintptr_t)1 << 47;
    memcpy(made->head.e_ident, ELFMAG, SELFMAG);
    made->head.e_phoff = offsetof(struct image, parts);
    made->head.e_phnum = 2;
    made->parts[0] = (Elf64_Phdr){.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_memsz = end - base};
    made->parts[1] = (Elf64_Phdr){
        .p_type = PT_DYNAMIC, .p_offset = offsetof(struct image, dynamic), .p_memsz = sizeof made->dynamic};
    made->dynamic[0] = (Elf64_Dyn){.d_tag = DT_STRTAB, .d_un.d_ptr = offsetof(struct image, strings)};
    made->dynamic[1] = (Elf64_Dyn){.d_tag = DT_SYMTAB, .d_un.d_ptr = offsetof(struct image, symbols)};
    made->dynamic[2] = (Elf64_Dyn){.d_tag = DT_HASH, .d_un.d_ptr = offsetof(struct image, hash)};
    made->dynamic[3] = (Elf64_Dyn){.d_tag = DT_SYMENT, .d_un.d_val = sizeof(Elf64_Sym)};
    made->symbols[1] = symbol(1, (uintptr_t)ask - base);
    made->symbols[2] = symbol(1 + sizeof CLOCK, (uintptr_t)ask_cpu - base);
    /* One bucket, three symbols with the empty one; the bucket begins with 1, after which comes 2, and then nothing. */
    uint32_t hash[6] = {1, 3, 1, 0, 2, 0};
    memcpy(made->hash, hash, sizeof hash);
    memcpy(made->strings + 1, CLOCK, sizeof CLOCK);
    memcpy(made->strings + 1 + sizeof CLOCK, CPU, sizeof CPU);
    step = shared;
    image = made;
}

unsigned long getauxval(unsigned long type)
{
    extern unsigned long __getauxval(unsigned long type);
    return type == AT_SYSINFO_EHDR && image ? (unsigned long)image : __getauxval(type);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int answer = ask(clock, time);
    if (answer == 0)
        return 0;
    return (int)syscall(SYS_clock_gettime, clock, time);
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    (void)zone;
    struct timespec now;
    ask(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec now;
    ask(CLOCK_REALTIME_COARSE, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}
