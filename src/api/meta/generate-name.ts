import { randomBytes } from 'node:crypto'

/** No vowels and no look-alikes: a random name spells nothing. */
const alphabet = 'bcdfghjklmnpqrstvwxz2456789'
const suffixLength = 5
const baseLengthMax = 63 - suffixLength

/** `n` characters of the alphabet of generated names. */
export function randomSuffix(n: number, random: (size: number) => Uint8Array = randomBytes): string {
  let text = ''
  while (text.length < n) {
    for (const byte of random(n * 2)) {
      // 243 = 9 x 27: bytes above it would make the first letters likelier.
      if (byte < 243 && text.length < n) text += alphabet[byte % alphabet.length]
    }
  }
  return text
}

/** A name for `generateName: base`, at most 63 characters. */
export function generateName(base: string, random?: (size: number) => Uint8Array): string {
  return `${base.slice(0, baseLengthMax)}${randomSuffix(suffixLength, random)}`
}

/** Upstream's `SafeEncodeString`: turns a number's digits into letters that are safe in names (pod-template-hash). */
export function safeEncode(text: string): string {
  let out = ''
  for (const character of text) out += alphabet[character.charCodeAt(0) % alphabet.length]
  return out
}
