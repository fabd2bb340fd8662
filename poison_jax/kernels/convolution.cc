// The convolution of NHWC images with HWIO filters and its two transposes, as XLA custom calls on CPUs.
//
// All three are sums of small matrix products. Under one row of the filter the inputs of neighbouring output
// pixels are windows of KW * I consecutive numbers that begin S * I numbers apart, so that a padded image is,
// without being copied, the left factor of
//
//   output[O pixels, outputs]           = sum_kh windows_kh[O pixels, KW * I] filter_kh[KW * I, outputs]
//   filter_gradient_kh[KW * I, outputs] = sum_rows windows_kh'[KW * I, O pixels] gradient[O pixels, outputs]
//
// and the input gradient is the first of them again, of the output's gradient with flipped filters, one for each
// of the S * S positions of an input pixel relative to the stride. Sums are in an order that depends on shapes
// alone: the number of threads does not change a bit.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using Index = int64_t;

namespace {

constexpr Index kChunks = 16;  // partial sums of a filter gradient: cores that can share one

// Bytes of a vector register, and rows of a tile: two vectors a row have to fit in 32 registers, or in 16.
#if defined(__AVX512F__)
constexpr Index kBytes = 64;
constexpr int kTall = 8;
#elif defined(__AVX__)
constexpr Index kBytes = 32;
constexpr int kTall = 6;
#else
constexpr Index kBytes = 16;
constexpr int kTall = 8;
#endif

template <typename T>
constexpr Index kLanes = kBytes / sizeof(T);

template <typename T>
struct Simd {
  typedef T Vector __attribute__((vector_size(kBytes), aligned(alignof(T)), may_alias));
};

Index RoundUp(Index n, Index multiple) { return (n + multiple - 1) / multiple * multiple; }

// Calls `work(i)` for i < count, on this thread and whichever of the pool's are free. A helper that comes late finds
// nothing left and touches nothing but the counters: no call waits for a thread that another call holds.
template <typename Work>
void ParallelFor(ffi::ThreadPool& pool, Index count, const Work& work) {
  struct Counters {
    std::atomic<Index> next{0}, done{0};
  };
  auto counters = std::make_shared<Counters>();
  auto run = [counters, count, &work] {
    for (Index i; (i = counters->next.fetch_add(1)) < count;) {
      work(i);
      counters->done.fetch_add(1, std::memory_order_release);
    }
  };
  for (Index i = 1; i < std::min(pool.num_threads(), count); ++i) pool.Schedule(decltype(run)(run));
  run();
  while (counters->done.load(std::memory_order_acquire) < count) std::this_thread::yield();
}

// A scratch buffer of this thread, kept between calls.
template <typename T, int kSlot>
T* Scratch(Index size) {
  thread_local std::vector<T> buffer;
  if (static_cast<Index>(buffer.size()) < size) buffer.resize(size);
  return buffer.data();
}

// sums[i, :] += sum_k a[i * a_row + k * a_step] * b[k * b_row, :], with M rows and N vectors of columns in registers.
template <typename T, int M, int N>
inline __attribute__((always_inline)) void MultiplyAdd(typename Simd<T>::Vector (&sums)[M][N], const T* a, Index a_row,
                                                       Index a_step, const T* b, Index b_row, Index depth) {
  using Vector = typename Simd<T>::Vector;
  for (Index k = 0; k < depth; ++k, a += a_step, b += b_row) {
    Vector columns[N];
    for (int j = 0; j < N; ++j) columns[j] = *reinterpret_cast<const Vector*>(b + j * kLanes<T>);
    for (int i = 0; i < M; ++i) {
      for (int j = 0; j < N; ++j) sums[i][j] += a[i * a_row] * columns[j];
    }
  }
}

struct Image {
  Index height, width, channels;
  Index row() const { return width * channels; }
  Index size() const { return height * row(); }
};

struct Padding {
  Index top, bottom, left, right;
  bool none() const { return !(top | bottom | left | right); }
};

// The image with zeros around it; the image itself where there is nothing to add.
template <typename T>
const T* Padded(const T* image, Image shape, Padding by, Image& padded) {
  padded = {shape.height + by.top + by.bottom, shape.width + by.left + by.right, shape.channels};
  if (by.none()) return image;
  T* out = Scratch<T, 0>(padded.size());
  std::fill_n(out, padded.size(), T(0));
  for (Index h = std::max<Index>(0, -by.top); h < std::min(shape.height, shape.height + by.bottom); ++h) {
    Index from = std::max<Index>(0, -by.left), to = std::min(shape.width, shape.width + by.right);
    std::memcpy(out + (h + by.top) * padded.row() + (from + by.left) * shape.channels,
                image + h * shape.row() + from * shape.channels, (to - from) * shape.channels * sizeof(T));
  }
  return out;
}

// Rows of `columns` numbers, each followed by zeros up to whole vectors.
template <typename T>
void WidenRows(const T* rows, Index count, Index columns, Index widened, T* out) {
  for (Index i = 0; i < count; ++i) {
    std::copy_n(rows + i * columns, columns, out + i * widened);
    std::fill_n(out + i * widened + columns, widened - columns, T(0));
  }
}

// A correlation of one padded image, pixel (h, w) of whose output lies at h * out_row + w * out_pixel.
template <typename T>
struct Correlation {
  const T* image;
  Index image_row, stride;        // numbers between rows, numbers between the windows of neighbouring pixels
  Index line;                     // numbers between the windows of the output's rows
  const T* filters;               // [taps, depth, widened outputs]
  Index taps, depth, outputs;
  Index out_height, out_width, out_row, out_pixel;

  template <int M, int N>
  void Tile(T* out, Index h, Index w, Index column) const {
    using Vector = typename Simd<T>::Vector;
    const Index widened = RoundUp(outputs, kLanes<T>);
    Vector sums[M][N] = {};
    for (Index tap = 0; tap < taps; ++tap) {
      MultiplyAdd<T, M, N>(sums, image + h * line + tap * image_row + w * stride, stride, 1,
                           filters + tap * depth * widened + column, widened, depth);
    }
    const Index bytes = std::min(N * kLanes<T>, outputs - column) * sizeof(T);
    for (int i = 0; i < M; ++i) {
      T* pixel = out + h * out_row + (w + i) * out_pixel + column;
      if (bytes == sizeof(sums[i])) {
        for (int j = 0; j < N; ++j) *reinterpret_cast<Vector*>(pixel + j * kLanes<T>) = sums[i][j];
      } else {
        std::memcpy(pixel, sums[i], bytes);
      }
    }
  }

  // The last tile of a row overlaps the one before it where M does not divide the width.
  template <int M, int N>
  void Columns(T* out, Index column) const {
    for (Index h = 0; h < out_height; ++h) {
      for (Index w = 0; w < out_width; w += M) Tile<M, N>(out, h, std::min(w, out_width - M), column);
    }
  }

  template <int M>
  void Rows(T* out) const {
    Index column = 0;
    for (; column + kLanes<T> < outputs; column += 2 * kLanes<T>) Columns<M, 2>(out, column);
    if (column < outputs) Columns<M, 1>(out, column);
  }

  void Run(T* out) const {
    if (out_width >= kTall) return Rows<kTall>(out);
    if (out_width >= 4) return Rows<4>(out);
    if (out_width >= 1) return Rows<1>(out);
  }
};

struct Geometry {
  Index batch, stride;
  Image input, output;
  Index filter_height, filter_width;
  Padding padding;
  Index depth() const { return filter_width * input.channels; }

  // A 1x1 filter on every pixel does not care where a row ends.
  Geometry Flattened() const {
    Geometry flat = *this;
    if (filter_height == 1 && filter_width == 1 && stride == 1 && padding.none()) {
      flat.input = {1, input.height * input.width, input.channels};
      flat.output = {1, output.height * output.width, output.channels};
    }
    return flat;
  }
};

template <typename T>
void Forward(ffi::ThreadPool& pool, const Geometry& g, const T* images, const T* filters, T* out) {
  const Index widened = RoundUp(g.output.channels, kLanes<T>);
  std::vector<T> packed;
  if (widened != g.output.channels) {
    packed.resize(g.filter_height * g.depth() * widened);
    WidenRows(filters, g.filter_height * g.depth(), g.output.channels, widened, packed.data());
    filters = packed.data();
  }
  ParallelFor(pool, g.batch, [&](Index n) {
    Image padded;
    const T* image = Padded(images + n * g.input.size(), g.input, g.padding, padded);
    Correlation<T>{image, padded.row(), g.stride * padded.channels, g.stride * padded.row(), filters, g.filter_height,
                   g.depth(), g.output.channels, g.output.height, g.output.width, g.output.row(), g.output.channels}
        .Run(out + n * g.output.size());
  });
}

// Which taps of the filter reach the input pixels at S * a + position: `count` of them from `first` on, S apart; tap i
// takes the output's pixel a + offset - i.
struct Reach {
  Index first, count, offset;
  Reach(Index position, Index pad, Index stride, Index taps) {
    first = (position + pad) % stride;
    count = taps > first ? (taps - first + stride - 1) / stride : 0;
    offset = (position + pad - first) / stride;
  }
};

template <typename T>
void InputGradient(ffi::ThreadPool& pool, const Geometry& g, const T* gradients, const T* filters, T* out) {
  const Index in = g.input.channels, outputs = g.output.channels, widened = RoundUp(in, kLanes<T>), S = g.stride;
  const Image &input = g.input, &output = g.output;
  Padding pad = {0, 0, 0, 0};  // so that every tap finds a pixel
  std::vector<Reach> rows, columns;
  for (Index r = 0; r < S; ++r) {
    rows.emplace_back(r, g.padding.top, S, g.filter_height);
    columns.emplace_back(r, g.padding.left, S, g.filter_width);
    pad.top = std::max(pad.top, rows[r].count - 1 - rows[r].offset);
    pad.left = std::max(pad.left, columns[r].count - 1 - columns[r].offset);
    pad.bottom = std::max(pad.bottom, (input.height - 1 - r) / S + rows[r].offset - (output.height - 1));
    pad.right = std::max(pad.right, (input.width - 1 - r) / S + columns[r].offset - (output.width - 1));
  }
  std::vector<std::vector<T>> packed(S * S);  // [position][tap row][tap column, output, widened input], flipped
  for (Index p = 0; p < S * S; ++p) {
    const Reach &r = rows[p / S], &c = columns[p % S];
    packed[p].resize(r.count * c.count * outputs * widened);
    for (Index i = 0; i < r.count; ++i) {
      for (Index j = 0; j < c.count; ++j) {
        const Index kh = r.first + S * (r.count - 1 - i), kw = c.first + S * (c.count - 1 - j);
        const T* from = filters + (kh * g.filter_width + kw) * in * outputs;
        T* to = packed[p].data() + (i * c.count + j) * outputs * widened;
        for (Index o = 0; o < outputs; ++o) {
          for (Index k = 0; k < in; ++k) to[o * widened + k] = from[k * outputs + o];
        }
      }
    }
  }
  ParallelFor(pool, g.batch, [&](Index n) {
    Image padded;
    const T* gradient = Padded(gradients + n * output.size(), output, pad, padded);
    for (Index p = 0; p < S * S; ++p) {
      const Index r = p / S, c = p % S;
      const Reach &row = rows[r], &column = columns[c];
      const Index top = pad.top + row.offset - row.count + 1, left = pad.left + column.offset - column.count + 1;
      Correlation<T>{gradient + top * padded.row() + left * outputs, padded.row(), outputs, padded.row(),
                     packed[p].data(), row.count * (column.count > 0), column.count * outputs, in,
                     (input.height - r + S - 1) / S, (input.width - c + S - 1) / S, S * input.row(), S * in}
          .Run(out + n * input.size() + r * input.row() + c * in);
    }
  });
}

// sums[depth, widened outputs] += windows' gradient, over one image and one row of the filter.
template <typename T, int M, int N>
void FilterTile(const Geometry& g, const T* image, Index image_row, const T* gradient, Index widened, T* sums) {
  using Vector = typename Simd<T>::Vector;
  Vector tile[M][N];
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) tile[i][j] = *reinterpret_cast<Vector*>(sums + i * widened + j * kLanes<T>);
  }
  for (Index h = 0; h < g.output.height; ++h) {
    MultiplyAdd<T, M, N>(tile, image + h * g.stride * image_row, 1, g.stride * g.input.channels,
                         gradient + h * g.output.width * widened, widened, g.output.width);
  }
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) *reinterpret_cast<Vector*>(sums + i * widened + j * kLanes<T>) = tile[i][j];
  }
}

template <typename T, int M>
void FilterRows(const Geometry& g, const T* image, Index image_row, const T* gradient, Index widened, T* sums) {
  Index column = 0;
  for (; column + kLanes<T> < widened; column += 2 * kLanes<T>) {
    FilterTile<T, M, 2>(g, image, image_row, gradient + column, widened, sums + column);
  }
  if (column < widened) FilterTile<T, M, 1>(g, image, image_row, gradient + column, widened, sums + column);
}

template <typename T>
void FilterGradient(ffi::ThreadPool& pool, const Geometry& g, const T* images, const T* gradients, T* out) {
  const Index outputs = g.output.channels, widened = RoundUp(outputs, kLanes<T>), depth = g.depth();
  const Index size = g.filter_height * depth * widened, chunks = std::min(kChunks, g.batch);
  const std::unique_ptr<T[]> partial(new T[std::max<Index>(1, chunks) * size]);
  std::fill_n(partial.get(), size, T(0));
  ParallelFor(pool, chunks, [&](Index chunk) {
    T* const total = partial.get() + chunk * size;
    std::fill_n(total, size, T(0));
    for (Index n = chunk * g.batch / chunks; n < (chunk + 1) * g.batch / chunks; ++n) {
      Image padded;
      const T* image = Padded(images + n * g.input.size(), g.input, g.padding, padded);
      const T* gradient = gradients + n * g.output.size();
      if (widened != outputs) {
        T* wide = Scratch<T, 1>(g.output.height * g.output.width * widened);
        WidenRows(gradient, g.output.height * g.output.width, outputs, widened, wide);
        gradient = wide;
      }
      for (Index kh = 0; kh < g.filter_height; ++kh) {
        Index k = 0;
        auto rows = [&](auto count) {
          constexpr int M = decltype(count)::value;
          for (; k + M <= depth; k += M) {
            FilterRows<T, M>(g, image + kh * padded.row() + k, padded.row(), gradient, widened,
                             total + (kh * depth + k) * widened);
          }
        };
        rows(std::integral_constant<int, kTall>());
        rows(std::integral_constant<int, 3>());
        rows(std::integral_constant<int, 1>());
      }
    }
  });
  ParallelFor(pool, g.filter_height, [&](Index kh) {
    T* const total = partial.get() + kh * depth * widened;
    for (Index chunk = 1; chunk < chunks; ++chunk) {
      for (Index i = 0; i < depth * widened; ++i) total[i] += total[chunk * size + i];
    }
    for (Index k = 0; k < depth; ++k) std::copy_n(total + k * widened, outputs, out + (kh * depth + k) * outputs);
  });
}

// The three calls take the same attributes, and differ in which of the arrays they are given and which they make.
enum class Call { kForward, kInputGradient, kFilterGradient };

template <Call call>
ffi::Error Run(ffi::ThreadPool pool, ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> result,
               Index stride, ffi::Span<const Index> padding) {
  ffi::AnyBuffer out = *result;
  const auto& input = call == Call::kInputGradient ? out : a;
  const auto& filter = call == Call::kFilterGradient ? out : b;
  const auto& output = call == Call::kForward ? out : call == Call::kInputGradient ? a : b;
  const auto in = input.dimensions(), k = filter.dimensions(), o = output.dimensions();
  if (in.size() != 4 || k.size() != 4 || o.size() != 4 || padding.size() != 4) {
    return ffi::Error::InvalidArgument("a convolution needs images, filters and outputs of four dimensions");
  }
  Geometry g = {in[0], stride, {in[1], in[2], in[3]}, {o[1], o[2], o[3]}, k[0], k[1],
                {padding[0], padding[1], padding[2], padding[3]}};
  g = g.Flattened();
  auto run = [&](auto zero) {
    using T = decltype(zero);
    const T *x = static_cast<const T*>(a.untyped_data()), *y = static_cast<const T*>(b.untyped_data());
    T* to = static_cast<T*>(out.untyped_data());
    if (call == Call::kForward) Forward<T>(pool, g, x, y, to);
    if (call == Call::kInputGradient) InputGradient<T>(pool, g, x, y, to);
    if (call == Call::kFilterGradient) FilterGradient<T>(pool, g, x, y, to);
    return ffi::Error::Success();
  };
  if (out.element_type() == ffi::F32) return run(float());
  if (out.element_type() == ffi::F64) return run(double());
  return ffi::Error::InvalidArgument("a convolution is of float32 or float64");
}

template <Call call>
auto Handler() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<ffi::AnyBuffer>()
      .Arg<ffi::AnyBuffer>()
      .Ret<ffi::AnyBuffer>()
      .Attr<Index>("stride")
      .Attr<ffi::Span<const Index>>("padding");
}

// The identity, in place where XLA can have it so: no work, but what comes before it is not fused with what comes after.
ffi::Error Keep(ffi::AnyBuffer from, ffi::Result<ffi::AnyBuffer> to) {
  if (from.untyped_data() != to->untyped_data()) std::memcpy(to->untyped_data(), from.untyped_data(), from.size_bytes());
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(KeepWhole, Keep, ffi::Ffi::Bind().Arg<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(Convolution, Run<Call::kForward>, Handler<Call::kForward>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvolutionInputGradient, Run<Call::kInputGradient>, Handler<Call::kInputGradient>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvolutionFilterGradient, Run<Call::kFilterGradient>, Handler<Call::kFilterGradient>());
