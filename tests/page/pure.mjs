// The page's functions on bytes and text, without a browser: `node --test tests/page/pure.mjs`.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import test from 'node:test';
import vm from 'node:vm';
import zlib from 'node:zlib';

const dir = new URL('../../src/web/page/', import.meta.url);
const source = ['bytes.js', 'format.js'].map((name) => fs.readFileSync(new URL(name, dir), 'utf8')).join('\n');
const page = vm.runInThisContext(`(() => { ${source}
  return { fromBase64, toBase64, utf8, asText, splitMessage, header, dechunk, unpack, hexDump, prettyJson, prettyXml,
    decodeForm, decodeMultipart, diffLines, curl, comparison, statusTest, bytesText, durationText, DURATIONS, SIZES }; })()`);

const bytes = (text) => new TextEncoder().encode(text);
const joined = ({ parts }) => parts.map(([, text]) => text).join('');
const text = (array) => new TextDecoder().decode(array);

test('JSON is indented and its values stay as they were written', () => {
  const result = page.prettyJson('{"a":[1,2.50,{}],"big":12345678901234567890, "e":[],"s":"\\u00e9\\n"}');
  assert.equal(result.error, '');
  assert.equal(joined(result), '{\n  "a": [\n    1,\n    2.50,\n    {}\n  ],\n  "big": 12345678901234567890,\n  "e": [],\n  "s": "\\u00e9\\n"\n}');
  for (const simple of ['1', '"x"', 'null', '[ ]', ' {} ']) assert.equal(page.prettyJson(simple).error, '', simple);
});

test('a fault of JSON has a place and nothing is lost', () => {
  for (const [wrong, where] of [
    ['{"a": 1,\n "b": tru}', 'line 2, column 7'], ['{"a" 1}', 'line 1, column 6'], ['[1,]', 'line 1, column 4'], ['{"a":1', 'line 1, column 7'],
    ['[1] x', 'line 1, column 5'], ['{a:1}', 'line 1, column 2'], ['"ab', 'line 1, column 1'], ['', 'line 1, column 1'], ['[1}', 'line 1, column 3'],
  ]) {
    const result = page.prettyJson(wrong);
    assert.match(result.error, new RegExp(where), wrong);
    const marks = result.parts.filter(([cls]) => cls === 'bad');
    assert.equal(marks.length, 1);
    const without = (t) => t.replace(/[\s\u23ce]/g, '');
    assert.equal(without(joined(result)), without(wrong));
  }
});

test('what is valid JSON to the engine is so here, and the other way', () => {
  let seed = 7;
  const dice = (n) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
  const alphabet = ['{', '}', '[', ']', ',', ':', '"a"', '1', '-0.5e3', 'true', ' ', '"\\u12"', '"\\x"', '01', '"\\n\\u00e9"'];
  let good = 0;
  for (let round = 0; round < 20000; round++) {
    const candidate = Array.from({ length: 1 + dice(7) }, () => alphabet[dice(alphabet.length)]).join('');
    let valid = true;
    try { JSON.parse(candidate); } catch { valid = false; }
    assert.equal(page.prettyJson(candidate).error === '', valid, candidate);
    if (valid) { good++; assert.deepEqual(JSON.parse(joined(page.prettyJson(candidate))), JSON.parse(candidate)); }
  }
  assert.ok(good > 100);
});

test('XML is indented, a fault has a place', () => {
  const result = page.prettyXml('<?xml version="1.0"?><r a="1>0"><b>text</b><c/><d><e>x &amp; y</e></d><empty></empty></r>');
  assert.equal(result.error, '');
  assert.equal(joined(result), '<?xml version="1.0"?>\n<r a="1>0">\n  <b>text</b>\n  <c/>\n  <d>\n    <e>x &amp; y</e>\n  </d>\n  <empty></empty>\n</r>');
  for (const wrong of ['<a><b></a></b>', '<a>', 'x<a/>', '<a b="></a>', '<!-- x', '</a>']) assert.notEqual(page.prettyXml(wrong).error, '', wrong);
});

test('what is made to take long does not', () => {
  const n = 200000;
  for (const text of ['['.repeat(n), '{"a":'.repeat(n), '{' + ' '.repeat(n) + '}', '"' + '\\n'.repeat(n), '-'.repeat(n), ' '.repeat(n)]) {
    assert.ok(joined(page.prettyJson(text)).length < 100 * text.length);
  }
  for (const text of ['<' + 'a'.repeat(n), '<a '.repeat(n), '<a>'.repeat(n), '<a b="' + '"'.repeat(n), '<' + '/'.repeat(n), '<!--'.repeat(n), '<a ' + "b='c' ".repeat(n)]) {
    assert.ok(joined(page.prettyXml(text)).length < 100 * text.length + 100);
  }
  page.diffLines(Array(n).fill('a'), Array(n).fill('b'));
  page.decodeMultipart(bytes('--B\r\n'.repeat(n / 10)), 'B');
  page.splitMessage(bytes('A:'.repeat(n)));
  page.decodeForm('&='.repeat(n));
});

test('a message falls into head and body, folded and repeated headers kept', () => {
  const message = page.splitMessage(bytes('POST /x HTTP/1.1\r\nA: 1\r\nA: 2\r\nLong: a\r\n b\r\nName: \u00e9\r\n\r\n\r\nbody'));
  assert.equal(message.first, 'POST /x HTTP/1.1');
  assert.deepEqual(message.headers, [['A', '1'], ['A', '2'], ['Long', 'a b'], ['Name', '\u00e9']]);
  assert.equal(text(message.body), '\r\nbody');
  assert.equal(page.splitMessage(bytes('GET / HTTP/1.1\r\nA: 1')).body.length, 0);
});

test('chunks are taken apart, and a cut one is said to be cut', () => {
  const plain = page.dechunk(bytes('4;x=y\r\nWiki\r\n5\r\npedia\r\n0\r\nTrailer: 1\r\n\r\n'));
  assert.deepEqual([text(plain.bytes), plain.whole], ['Wikipedia', true]);
  const cut = page.dechunk(bytes('4\r\nWiki\r\n5\r\npe'));
  assert.deepEqual([text(cut.bytes), cut.whole], ['Wikipe', false]);
  assert.equal(page.dechunk(bytes('not chunked')).whole, false);
});

test('packed bodies are unpacked, as far as they go', async () => {
  const long = 'abc '.repeat(5000);
  assert.equal(text((await page.unpack(zlib.gzipSync(long), 'gzip')).bytes), long);
  assert.equal(text((await page.unpack(zlib.deflateSync(long), 'deflate')).bytes), long);
  assert.equal(text((await page.unpack(bytes('x'), 'identity')).bytes), 'x');
  const broken = await page.unpack(bytes('not gzip'), 'gzip');
  assert.equal(text(broken.bytes), 'not gzip');
  assert.match(broken.note, /as it is/);
});

test('text is told from bytes', () => {
  assert.equal(page.asText(bytes('h\u00e9llo\n')), 'h\u00e9llo\n');
  assert.equal(page.asText(Uint8Array.of(0xff, 0xfe, 0)), null);
  assert.equal(page.asText(bytes('a\0b')), null);
  assert.equal(page.asText(Uint8Array.of(0xe9), 'iso-8859-1'), '\u00e9');
  assert.equal(text(page.fromBase64(page.toBase64(bytes('\u00e9')))), '\u00e9');
  assert.equal(page.hexDump(bytes('0123456789abcdefX'), 0, 99), '00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  0123456789abcdef\n00000010  58                                                X');
});

test('forms become rows', () => {
  assert.deepEqual(page.decodeForm('a=1&b=two+w%C3%B6rds&c&d=%zz&e=x=y'), [['a', '1'], ['b', 'two w\u00f6rds'], ['c', ''], ['d', '%zz'], ['e', 'x=y']]);
  const body = bytes('--B\r\nContent-Disposition: form-data; name="t"\r\n\r\nh\u00e9\r\n--B\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n\x01\x02\r\n--B--\r\n');
  assert.deepEqual(page.decodeMultipart(body, 'B'), [['t', 'h\u00e9'], ['f', 'a.png, image/png, 2 B']]);
});

test('a difference gives back both sides', () => {
  const a = 'a b c d e f'.split(' ');
  const b = 'a x c d f g'.split(' ');
  const diff = page.diffLines(a, b);
  assert.deepEqual(diff.filter(([s]) => s !== '+').map(([, l]) => l), a);
  assert.deepEqual(diff.filter(([s]) => s !== '-').map(([, l]) => l), b);
  assert.equal(diff.filter(([s]) => s === ' ').length, 4);
  assert.ok(page.diffLines(a, a).every(([s]) => s === ' '));
  assert.deepEqual(page.diffLines([], ['x']), [['+', 'x']]);
});

test('filters compare', () => {
  const slow = page.comparison('>100ms', page.DURATIONS);
  assert.deepEqual([slow(1e8), slow(1.1e8)], [false, true]);
  assert.equal(page.comparison('<=2 s', page.DURATIONS)(2e9), true);
  assert.equal(page.comparison('10k', page.SIZES)(10000), true);
  assert.equal(page.comparison('fast', page.DURATIONS), null);
  assert.equal(page.comparison('5 parsecs', page.SIZES), null);
  const status = page.statusTest('4xx, 200');
  assert.deepEqual([200, 201, 404, 500, 0].map(status), [true, false, true, false, false]);
  assert.equal(page.statusTest('pending')(0), true);
});

// Runs the command with a `curl` that prints its arguments and its input.
function run(command) {
  const fake = 'curl() { for word in "$@"; do printf "%s\\0" "$word"; done; case " $* " in *" @- "*) printf "IN\\0"; cat;; esac; }\n';
  return execFileSync('sh', ['-c', fake + command]);
}

test('the curl command says the same whatever stands in the request', () => {
  const nasty = "it's $HOME `id` \"quoted\" \\ ! \n second line * ? ; & | < > ~ # é";
  const headers = [['@file', 'x'], ['Host', 'web.localhost:4080'], ['X-Nasty', nasty.replace('\n', '')], ['Empty', ''], ['Content-Length', '3'], ['User-Agent', 'u'], ['Accept', '*/*'], ['Content-Type', 'text/plain']];
  const words = run(page.curl('http://web.localhost:4080', 'POST', "/p?a=[1]&b={x}&c='", headers, bytes(nasty))).toString().split('\0');
  assert.equal(words[0], '--globoff');
  assert.equal(words[1], "http://web.localhost:4080/p?a=[1]&b={x}&c='");
  assert.ok(words.includes('X-Nasty: ' + nasty.replace('\n', '')));
  assert.ok(words.includes('Empty;'));
  assert.equal(words[words.indexOf('--data-raw') + 1], nasty);
  assert.ok(!words.some((word) => /^(Host|Content-Length):/i.test(word)));
  assert.ok(!words.includes('-X'));
});

test('a body of bytes goes through base64, a file name stays text', () => {
  const binary = Uint8Array.from({ length: 256 }, (_, i) => i);
  const out = run(page.curl('http://h', 'PUT', '/', [['Content-Type', 'x/y']], binary));
  const mark = out.indexOf('IN\0');
  assert.deepEqual(new Uint8Array(out.subarray(mark + 3)), binary);
  assert.match(out.subarray(0, mark).toString(), /-X\0PUT\0/);
  const words = run(page.curl('http://h', 'POST', '/', [], bytes('@/etc/passwd'))).toString().split('\0');
  assert.equal(words[words.indexOf('--data-raw') + 1], '@/etc/passwd');
  assert.ok(words.includes('Content-Type:') && words.includes('User-Agent:') && words.includes('Accept:'));
  assert.ok(run(page.curl('http://h', 'HEAD', '/a/../b', [], bytes(''))).toString().startsWith('--path-as-is\0http://h/a/../b\0--head\0'));
});

test('figures are short', () => {
  assert.deepEqual([0, 999, 1500, 25000, 1.5e6].map(page.bytesText), ['0 B', '999 B', '1.5 kB', '25 kB', '1.5 MB']);
  assert.deepEqual([0, 12345, 4.2e6, 4.2e7, 2.5e9].map(page.durationText), ['0', '0.01 ms', '4.2 ms', '42 ms', '2.50 s']);
});
