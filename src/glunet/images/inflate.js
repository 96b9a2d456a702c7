"use strict";
// Inflate (RFC 1950, 1951), for browsers without DecompressionStream: bit by bit, slow but short.
function inflate(bytes, length) {
  const out = new Uint8Array(length);
  let at = 2, bit = 0, end = 0; // two bytes of zlib's header
  const take = (count) => {
    let value = 0;
    for (let i = 0; i < count; i++) {
      value |= ((bytes[at] >> bit) & 1) << i;
      if (++bit === 8) { bit = 0; at++; }
    }
    return value;
  };
  // A Huffman code as how many codes there are of each length, and the symbols in the order of their codes.
  const table = (lengths) => {
    const counts = new Uint16Array(16), symbols = [];
    for (let size = 1; size < 16; size++) {
      lengths.forEach((own, symbol) => { if (own === size) { counts[size]++; symbols.push(symbol); } });
    }
    return { counts, symbols };
  };
  const read = ({ counts, symbols }) => {
    let code = 0, first = 0, index = 0;
    for (let size = 1; size < 16; size++) {
      code |= take(1);
      if (code - first < counts[size]) return symbols[index + code - first];
      index += counts[size];
      first = (first + counts[size]) << 1;
      code <<= 1;
    }
    throw new Error("The data of this page is damaged.");
  };
  // Lengths and distances: groups with one more extra bit each, from the formats' tables.
  const bases = (extras, start) => {
    let base = start;
    return extras.map((extra) => { const own = [base, extra]; base += 1 << extra; return own; });
  };
  const spans = bases([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5], 3);
  spans.push([258, 0]);
  const distances = bases([0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13], 1);
  const repeat = (value, count) => new Array(count).fill(value);
  const dynamic = () => {
    const literals = take(5) + 257, far = take(5) + 1, given = take(4) + 4, sizes = repeat(0, 19);
    const order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    for (let i = 0; i < given; i++) sizes[order[i]] = take(3);
    const code = table(sizes), lengths = [];
    while (lengths.length < literals + far) {
      const symbol = read(code);
      if (symbol < 16) lengths.push(symbol);
      else if (symbol === 16) lengths.push(...repeat(lengths[lengths.length - 1], 3 + take(2)));
      else lengths.push(...repeat(0, symbol === 17 ? 3 + take(3) : 11 + take(7)));
    }
    return [table(lengths.slice(0, literals)), table(lengths.slice(literals))];
  };
  const fixed = () => [table([...repeat(8, 144), ...repeat(9, 112), ...repeat(7, 24), ...repeat(8, 8)]), table(repeat(5, 30))];
  for (let last = 0; !last;) {
    last = take(1);
    const kind = take(2);
    if (kind === 0) {
      if (bit) { bit = 0; at++; }
      const count = bytes[at] | (bytes[at + 1] << 8);
      out.set(bytes.subarray(at + 4, at + 4 + count), end);
      at += 4 + count;
      end += count;
      continue;
    }
    const [literal, distance] = kind === 1 ? fixed() : dynamic();
    for (let symbol = read(literal); symbol !== 256; symbol = read(literal)) {
      if (symbol < 256) { out[end++] = symbol; continue; }
      const [span, more] = spans[symbol - 257];
      const count = span + take(more);
      const [base, extra] = distances[read(distance)];
      const back = base + take(extra);
      for (let i = 0; i < count; i++, end++) out[end] = out[end - back];
    }
  }
  return out;
}
