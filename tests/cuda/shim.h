// CUDA's device code on a CPU: blocks run one after the other, the threads of a block as fibers. A warp goes on until all
// its threads wait for other warps, or have ended; then comes the next. What is computed is what a card would compute. A
// race between barriers shows where the result depends on the order of the threads, which `backwards` turns round.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define FIBER_LEAVE(save, stack, size) __sanitizer_start_switch_fiber(save, stack, size)
#define FIBER_ARRIVE(save, stack, size) __sanitizer_finish_switch_fiber(save, stack, size)
#define FIBER_END() __asan_handle_no_return()
#else
#define FIBER_LEAVE(save, stack, size)
#define FIBER_ARRIVE(save, stack, size)
#define FIBER_END()
#endif

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static __attribute__((section("shared_memory")))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __restrict__
#define __launch_bounds__(...)
#define SHARED_MEMORY(name) float* name = shim::shared

struct dim3 { unsigned x = 1, y = 1, z = 1; };
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
using std::max;
using std::min;
inline float __fmul_rn(float a, float b) { return a * b; }  // compiled with -ffp-contract=off
inline float __fsub_rn(float a, float b) { return a - b; }

// Where the linker put the kernels' own shared memory; null if they have none.
extern "C" __attribute__((weak, visibility("hidden"))) char __start_shared_memory[], __stop_shared_memory[];

extern "C" { int backwards = 0; }  // 1: the last block and the last thread come first

namespace shim {

constexpr int MOST = 1024, WARP = 32;
constexpr size_t STACK = 64 * 1024;

// ---- Fibers ----

void entry();
void end(int i);

#if defined(__x86_64__) && !defined(SHIM_UCONTEXT)

// What swapcontext does, without its call of the system for the mask of signals.
extern "C" __attribute__((visibility("hidden"))) void shim_switch(void** from, void* to);
asm(R"(
    .text
    .p2align 4
    .type shim_switch, @function
    .hidden shim_switch
    .globl shim_switch
shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size shim_switch, . - shim_switch
)");

struct Context {
    void* place = nullptr;  // of the registers, on the stack
    void start(char* stack) {
        void** top = (void**)(stack + STACK) - 8;
        for (int i = 0; i < 6; i++) top[i] = nullptr;
        top[6] = (void*)entry;  // where shim_switch returns to
        top[7] = nullptr;       // where entry would return to
        place = top;
    }
    void go(Context& to) { shim_switch(&place, to.place); }
};

#else
}  // namespace shim
#include <ucontext.h>
namespace shim {

struct Context {
    ucontext_t place;
    void start(char* stack) {
        getcontext(&place);
        place.uc_stack.ss_sp = stack;
        place.uc_stack.ss_size = STACK;
        place.uc_link = nullptr;
        makecontext(&place, entry, 0);
    }
    void go(Context& to) { swapcontext(&place, &to.place); }
};

#endif

struct Barrier { long round = 0; int arrived = 0, ended = 0; };
struct alignas(16) Stack { char bytes[STACK]; };
struct Fiber {
    Context context;
    std::unique_ptr<Stack> stack;
    bool done;
    const Barrier* barrier;  // where it waits, or waited last, and in which round
    long round;
    void* fake;
    bool waits() const { return barrier && barrier->round == round; }
};

inline dim3 thread, block, block_size, grid_size;
inline Fiber fibers[MOST];
inline Barrier of_block, of_warp[MOST / WARP];
inline Context scheduler;
inline const void* scheduler_stack;
inline size_t scheduler_size;
inline int current, threads;
inline float* shared;
inline const std::function<void()>* body;

inline void place(int i) {
    current = i;
    thread = {i % block_size.x, i / block_size.x % block_size.y, i / block_size.x / block_size.y};
}

inline void leave() {
    Fiber& me = fibers[current];
    FIBER_LEAVE(&me.fake, scheduler_stack, scheduler_size);
    me.context.go(scheduler);
    FIBER_ARRIVE(me.fake, nullptr, nullptr);
}

inline void entry() {
    FIBER_ARRIVE(nullptr, &scheduler_stack, &scheduler_size);
    (*body)();
    Fiber& me = fibers[current];
    end(current);
    FIBER_END();
    FIBER_LEAVE(nullptr, scheduler_stack, scheduler_size);
    me.context.go(scheduler);
    abort();
}

// ---- Barriers ----

// Wait until `count` threads have arrived.
inline void wait(Barrier& barrier, int count) {
    if (++barrier.arrived == count) {
        barrier.arrived = 0;
        barrier.round++;
        return;
    }
    Fiber& me = fibers[current];
    me.barrier = &barrier;
    me.round = barrier.round;
    leave();
}

inline void end(int i) {
    fibers[i].done = true;
    of_block.ended++;
    of_warp[i / WARP].ended++;
}

[[noreturn]] inline void hang() {
    for (int i = 0; i < threads; i++) {
        const Fiber& fiber = fibers[i];
        if (fiber.done || !fiber.barrier->ended) continue;
        int other = fiber.barrier == &of_block ? 0 : i / WARP * WARP;
        while (!fibers[other].done) other++;
        fprintf(stderr, "thread %d ended while thread %d waits at a barrier\n", other, i);
        abort();
    }
    fprintf(stderr, "a block hangs at a barrier\n");
    abort();
}

// ---- Launches ----

// NaN in shared memory: what a block reads, it must have written.
__attribute__((no_sanitize("address"))) inline void spoil(unsigned bytes) {
    memset((void*)shared, 0xff, bytes);
    for (volatile char* p = __start_shared_memory; p < __stop_shared_memory; p++) *p = (char)0xff;
}

inline void start_block(unsigned bytes) {
    spoil(bytes);
    of_block = Barrier();
    for (int i = 0; i < threads; i++) {
        Fiber& fiber = fibers[i];
        if (!fiber.stack) fiber.stack.reset(new Stack);
        fiber.done = false;
        fiber.barrier = nullptr;
        fiber.context.start(fiber.stack->bytes);
        of_warp[i / WARP] = Barrier();
    }
}

// Let a thread go on until it waits or ends.
inline void resume(int i) {
    place(i);
    void* fake = nullptr;
    (void)fake;
    FIBER_LEAVE(&fake, fibers[i].stack->bytes, STACK);
    scheduler.go(fibers[i].context);
    FIBER_ARRIVE(fake, nullptr, nullptr);
}

// Let the threads of a warp go on as far as they come; return whether any could.
inline bool run_warp(int warp) {
    const int first = warp * WARP, count = std::min(WARP, threads - first);
    for (bool any = false;; any = true) {
        bool went = false;
        for (int k = 0; k < count; k++) {
            const int i = first + (backwards ? count - 1 - k : k);
            if (fibers[i].done || fibers[i].waits()) continue;
            resume(i);
            went = true;
        }
        if (!went) return any;
    }
}

inline void run_block() {
    const int warps = (threads + WARP - 1) / WARP;
    while (of_block.ended < threads) {
        bool went = false;
        for (int k = 0; k < warps; k++) went |= run_warp(backwards ? warps - 1 - k : k);
        if (!went) hang();
    }
}

inline void launch(const unsigned* grid, const unsigned* size, unsigned bytes, const std::function<void()>& work) {
    grid_size = {grid[0], grid[1], grid[2]};
    block_size = {size[0], size[1], size[2]};
    threads = size[0] * size[1] * size[2];
    body = &work;
    shared = (float*)operator new(bytes, std::align_val_t(16));
    const unsigned blocks = grid[0] * grid[1] * grid[2];
    for (unsigned k = 0; k < blocks; k++) {
        const unsigned i = backwards ? blocks - 1 - k : k;
        block = {i % grid[0], i / grid[0] % grid[1], i / grid[0] / grid[1]};
        start_block(bytes);
        run_block();
    }
    operator delete(shared, std::align_val_t(16));
}

// ---- Arguments: as CUDA takes them, an array of pointers to values ----

template <class A> std::string kind() {
    if constexpr (std::is_pointer_v<A>) {
        using T = std::remove_cv_t<std::remove_pointer_t<A>>;
        if constexpr (std::is_class_v<T>) return "*" + std::to_string(sizeof(T)) + " ";
        else return "*" + kind<T>();
    } else return (std::is_floating_point_v<A> ? "f" : std::is_unsigned_v<A> ? "u" : "i") + std::to_string(sizeof(A)) + " ";
}

template <class... A> const char* signature(void (*)(A...)) {
    static const std::string text = (std::string() + ... + kind<A>());
    return text.c_str();
}

template <class... A, size_t... I> void apply(void (*f)(A...), void** args, std::index_sequence<I...>) {
    f(*(std::remove_cv_t<A>*)args[I]...);
}

template <class... A> void run(void (*f)(A...), const unsigned* grid, const unsigned* size, unsigned bytes, void** args) {
    launch(grid, size, bytes, [&] { apply(f, args, std::index_sequence_for<A...>()); });
}

}  // namespace shim

#define EXPORT(name)                                                                                                  \
    extern "C" const char* signature_##name() { return shim::signature(name); }                                       \
    extern "C" void call_##name(const unsigned* grid, const unsigned* size, unsigned bytes, void** args) {            \
        shim::run(name, grid, size, bytes, args);                                                                     \
    }

#define threadIdx (shim::thread)
#define blockIdx (shim::block)
#define blockDim (shim::block_size)
#define gridDim (shim::grid_size)

inline void __syncthreads() { shim::wait(shim::of_block, shim::threads); }

inline unsigned to_tf32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}

namespace shim {
inline float exchange[MOST / WARP][2][WARP][6];  // by warp, turn and lane: four numbers of A, two of B
}

inline void mma_16x8x8(float& d0, float& d1, float& d2, float& d3, unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                       unsigned b0, unsigned b1) {
    const int warp = shim::current / shim::WARP, lane = shim::current % shim::WARP, g = lane >> 2, t = lane & 3;
    shim::Barrier& barrier = shim::of_warp[warp];
    auto& x = shim::exchange[warp][barrier.round & 1];  // nobody is two turns ahead: one barrier is enough
    const unsigned mine[6] = {a0, a1, a2, a3, b0, b1};
    memcpy(x[lane], mine, sizeof mine);
    shim::wait(barrier, shim::WARP);
    float* d[4] = {&d0, &d1, &d2, &d3};
    auto a = [&](int row, int k) { return x[row % 8 * 4 + k % 4][row / 8 + 2 * (k / 4)]; };
    auto b = [&](int k, int column) { return x[column * 4 + k % 4][4 + k / 4]; };
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 8; k++) *d[i] += a(g + i / 2 * 8, k) * b(k, 2 * t + i % 2);
}
