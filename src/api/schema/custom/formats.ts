import { isIP, isIPv4, isIPv6 } from 'node:net'
import { parseDuration, parseInstant } from '#api/schema/times.ts'

/** Formats that upstream checks; any other word is only for the reader. */
const formats: Readonly<Record<string, (text: string) => boolean>> = {
  'date-time': (text) => parseInstant(text.replace(' ', 'T').toUpperCase()) !== undefined,
  date: (text) => /^\d{4}-\d\d-\d\d$/.test(text) && parseInstant(`${text}T00:00:00Z`) !== undefined,
  duration: (text) => parseDuration(text) !== undefined || /^\d+ ?(ns|us|ms|s|m|h|d|w)/.test(text),
  email: (text) => /^[^\s@]+@[^\s@]+$/.test(text),
  hostname: (text) =>
    text.length <= 255 && text.split('.').every((l) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i.test(l)),
  ipv4: isIPv4,
  ipv6: isIPv6,
  ip: (text) => isIP(text) !== 0,
  cidr: isCidr,
  mac: (text) => /^([0-9a-f]{2}[:-]){5}[0-9a-f]{2}$|^([0-9a-f]{4}\.){2}[0-9a-f]{4}$/i.test(text),
  uri: (text) => URL.canParse(text) || /^\//.test(text),
  uuid: (text) => /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i.test(text),
  uuid3: (text) => /^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i.test(text),
  uuid4: (text) => /^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$/i.test(text),
  uuid5: (text) => /^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$/i.test(text),
  byte: (text) => text !== '' && text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text),
  hexcolor: (text) => /^#?([0-9a-f]{3}|[0-9a-f]{6})$/i.test(text),
  bsonobjectid: (text) => /^[0-9a-f]{24}$/i.test(text),
}

export const isFormat = (format: string, text: string): boolean => formats[format]?.(text) ?? true

function isCidr(text: string): boolean {
  const [address = '', length = '', more] = text.split('/')
  const family = isIP(address)
  return more === undefined && family !== 0 && /^\d{1,3}$/.test(length) && Number(length) <= (family === 4 ? 32 : 128)
}
