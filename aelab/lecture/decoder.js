// Runs a decoder in the page: a program of `decoder.py`, whose steps are named after PyTorch's operations.
// A value is a Float32Array in the order of PyTorch, (C, H, W) without the batch; sums are in double precision.

function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer); // little-endian, as all machines with a browser are
}

const OPERATIONS = {
  reshape: (x) => x,
  relu: (x) => x.map((v) => Math.max(0, v)),
  leaky_relu: (x, step) => x.map((v) => (v < 0 ? step.slope * v : v)),
  sigmoid: (x) => x.map((v) => 1 / (1 + Math.exp(-v))),
  silu: (x) => x.map((v) => v / (1 + Math.exp(-v))),
  tanh: (x) => x.map(Math.tanh),

  // factor[c] x + term[c], where c is the channel; a vector has one value a channel
  scale(x, step) {
    const plane = x.length / step.factor.length;
    return x.map((v, k) => v * step.factor[Math.floor(k / plane)] + step.term[Math.floor(k / plane)]);
  },

  // weight (out, in)
  linear(x, step, size) {
    const y = new Float32Array(size);
    for (let row = 0; row < size; row++) {
      let sum = step.bias ? step.bias[row] : 0;
      for (let k = 0, at = row * x.length; k < x.length; k++, at++) sum += step.weight[at] * x[k];
      y[row] = sum;
    }
    return y;
  },

  // weight (out, in, kernel height, kernel width): each output pixel gathers the pixels under the kernel
  conv2d(x, step, size, inShape) {
    const [inputs, height, width] = inShape, [outputs, high, wide] = step.shape, [kh, kw] = step.kernel;
    const y = new Float64Array(size);
    for (let o = 0; o < outputs; o++) {
      if (step.bias) y.fill(step.bias[o], o * high * wide, (o + 1) * high * wide);
      for (let i = 0; i < inputs; i++)
        for (let ky = 0; ky < kh; ky++)
          for (let kx = 0; kx < kw; kx++) {
            const w = step.weight[((o * inputs + i) * kh + ky) * kw + kx];
            for (let r = 0; r < high; r++) {
              const from = r * step.stride[0] + ky - step.padding[0];
              if (from < 0 || from >= height) continue;
              for (let c = 0; c < wide; c++) {
                const at = c * step.stride[1] + kx - step.padding[1];
                if (at >= 0 && at < width) y[(o * high + r) * wide + c] += w * x[(i * height + from) * width + at];
              }
            }
          }
    }
    return Float32Array.from(y);
  },

  // weight (in, out, kernel height, kernel width): each input pixel is spread over the pixels under the kernel
  conv_transpose2d(x, step, size, inShape) {
    const [inputs, height, width] = inShape, [outputs, high, wide] = step.shape, [kh, kw] = step.kernel;
    const y = new Float64Array(size);
    for (let o = 0; o < outputs; o++) {
      if (step.bias) y.fill(step.bias[o], o * high * wide, (o + 1) * high * wide);
      for (let i = 0; i < inputs; i++)
        for (let ky = 0; ky < kh; ky++)
          for (let kx = 0; kx < kw; kx++) {
            const w = step.weight[((i * outputs + o) * kh + ky) * kw + kx];
            for (let r = 0; r < height; r++) {
              const to = r * step.stride[0] + ky - step.padding[0];
              if (to < 0 || to >= high) continue;
              for (let c = 0; c < width; c++) {
                const at = c * step.stride[1] + kx - step.padding[1];
                if (at >= 0 && at < wide) y[(o * high + to) * wide + at] += w * x[(i * height + r) * width + c];
              }
            }
          }
    }
    return Float32Array.from(y);
  },

  // (C f f, H, W) -> (C, f H, f W)
  pixel_shuffle(x, step, size, inShape) {
    const f = step.factor, [, height, width] = inShape, [channels, high, wide] = step.shape;
    const y = new Float32Array(size);
    for (let c = 0, k = 0; c < channels; c++)
      for (let r = 0; r < high; r++)
        for (let s = 0; s < wide; s++, k++) {
          const plane = c * f * f + (r % f) * f + (s % f);
          y[k] = x[(plane * height + Math.floor(r / f)) * width + Math.floor(s / f)];
        }
    return y;
  },

  // the part of x that begins at step.start along dimension step.dim, as long as the shape says
  slice(x, step, size, inShape) {
    const inner = inShape.slice(step.dim + 1).reduce((a, b) => a * b, 1);
    const part = step.shape[step.dim] * inner, whole = inShape[step.dim] * inner;
    const y = new Float32Array(size);
    for (let k = 0; k * part < size; k++) {
      const from = k * whole + step.start * inner;
      y.set(x.subarray(from, from + part), k * part);
    }
    return y;
  },
};

// The function that decodes a code (an array of D numbers) into an image (C H W numbers in a Float32Array).
function makeDecoder(program) {
  const weights = Object.fromEntries(Object.entries(program.weights).map(([name, text]) => [name, floats(text)]));
  const steps = program.steps.map((step) => ({
    ...step,
    ...Object.fromEntries(Object.entries(step).filter(([, name]) => name in weights).map(([role, name]) => [role, weights[name]])),
  }));
  return (code) => {
    const values = { code: Float32Array.from(code) }, shapes = { code: [program.code] };
    for (const step of steps) {
      const size = step.shape.reduce((a, b) => a * b, 1);
      const inputs = step.from.map((name) => values[name]);
      if (step.op === "cat") {
        values[step.to] = new Float32Array(size);
        inputs.reduce((at, x) => (values[step.to].set(x, at), at + x.length), 0);
      } else {
        values[step.to] = OPERATIONS[step.op](inputs[0], step, size, shapes[step.from[0]]);
      }
      shapes[step.to] = step.shape;
    }
    return values[steps[steps.length - 1].to];
  };
}
