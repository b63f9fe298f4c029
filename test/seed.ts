import fc from 'fast-check'

/**
 * Loaded before every test file: properties try the same cases each time, so that two runs of `npm test` say the same.
 * `WEFT_SEED=$RANDOM npm run check` tries others; what it prints of a failure (seed, path) finds it again.
 */
fc.configureGlobal({ seed: Number(process.env.WEFT_SEED ?? 42) })
