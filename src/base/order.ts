/** By code units: an order that is the same on every machine, for `toSorted`. */
export const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
