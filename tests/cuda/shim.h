// CUDA's device code on a CPU: blocks run one after the other, the threads of a block as fibers that take turns at
// barriers. What is computed is what a card would compute; races between barriers are not seen.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define FIBER_LEAVE(save, stack, size) __sanitizer_start_switch_fiber(save, stack, size)
#define FIBER_ARRIVE(save) __sanitizer_finish_switch_fiber(save, nullptr, nullptr)
#else
#define FIBER_LEAVE(save, stack, size)
#define FIBER_ARRIVE(save)
#endif

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
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

namespace shim {

constexpr size_t STACK = 64 * 1024;
struct Fiber { ucontext_t context; std::vector<char> stack; bool done; long waits; void* fake; };

inline dim3 thread, block, block_size, grid_size;
inline std::vector<Fiber> fibers(1024);
inline ucontext_t scheduler;
inline void* scheduler_fake;
inline const void* scheduler_stack;
inline size_t scheduler_size;
inline int current, threads;
inline long progress;
inline float* shared;
inline const std::function<void()>* body;

inline void place(int i) {
    current = i;
    thread = {i % block_size.x, i / block_size.x % block_size.y, i / block_size.x / block_size.y};
}

inline void leave(bool for_good) {
    Fiber& me = fibers[current];
    (void)for_good;
    FIBER_LEAVE(for_good ? nullptr : &me.fake, scheduler_stack, scheduler_size);
    swapcontext(&me.context, &scheduler);
    FIBER_ARRIVE(me.fake);
}

inline void entry() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
    (*body)();
    fibers[current].done = true;
    progress++;
    leave(true);
}

// A barrier of a group of threads: each counts its own visits, and waits for the group's to catch up.
inline void wait(int first, int last) {
    const long visit = ++fibers[current].waits;
    const int me = current;
    progress++;
    for (;;) {
        bool all = true;
        for (int i = first; i < last; i++) all = all && fibers[i].waits >= visit;
        if (all) return;
        for (int i = first; i < last; i++)
            if (fibers[i].done && fibers[i].waits < visit) {
                fprintf(stderr, "thread %d ended while thread %d waits at a barrier\n", i, me);
                abort();
            }
        leave(false);
        place(me);
    }
}

inline void launch(const unsigned* grid, const unsigned* size, unsigned bytes, const std::function<void()>& work) {
    grid_size = {grid[0], grid[1], grid[2]};
    block_size = {size[0], size[1], size[2]};
    threads = size[0] * size[1] * size[2];
    body = &work;
    std::vector<float4> memory(bytes / 16 + 1);
    shared = (float*)memory.data();
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                block = {x, y, z};
                memset(shared, 0xff, bytes);  // NaN: what a block reads, it must have written
                for (int i = 0; i < threads; i++) {
                    Fiber& fiber = fibers[i];
                    fiber.stack.resize(STACK);
                    fiber.done = false;
                    fiber.waits = 0;
                    getcontext(&fiber.context);
                    fiber.context.uc_stack.ss_sp = fiber.stack.data();
                    fiber.context.uc_stack.ss_size = STACK;
                    fiber.context.uc_link = nullptr;
                    makecontext(&fiber.context, entry, 0);
                }
                for (int left = threads; left > 0;) {
                    const long before = progress;
                    for (int i = 0; i < threads; i++) {
                        if (fibers[i].done) continue;
                        place(i);
                        FIBER_LEAVE(&scheduler_fake, fibers[i].stack.data(), STACK);
                        swapcontext(&scheduler, &fibers[i].context);
                        FIBER_ARRIVE(scheduler_fake);
                        left -= fibers[i].done;
                    }
                    if (progress == before) {
                        fprintf(stderr, "a block hangs at a barrier\n");
                        abort();
                    }
                }
            }
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

inline float exchange[32][32][6];  // by warp and lane: four numbers of A, two of B

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

inline void __syncthreads() { shim::wait(0, shim::threads); }

inline unsigned to_tf32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}

inline void mma_16x8x8(float& d0, float& d1, float& d2, float& d3, unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                       unsigned b0, unsigned b1) {
    const int warp = shim::current / 32, lane = shim::current % 32, g = lane >> 2, t = lane & 3;
    auto& x = shim::exchange[warp];
    const unsigned mine[6] = {a0, a1, a2, a3, b0, b1};
    memcpy(x[lane], mine, sizeof mine);
    shim::wait(32 * warp, std::min(32 * warp + 32, shim::threads));
    auto a = [&](int row, int k) { return x[row % 8 * 4 + k % 4][row / 8 + 2 * (k / 4)]; };
    auto b = [&](int k, int column) { return x[column * 4 + k % 4][4 + k / 4]; };
    float* d[4] = {&d0, &d1, &d2, &d3};
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 8; k++) *d[i] += a(g + i / 2 * 8, k) * b(k, 2 * t + i % 2);
    shim::wait(32 * warp, std::min(32 * warp + 32, shim::threads));
}
