/* memmove and memcpy, a block at a time. Those of zig's small C library copy a byte at a
 * time, six instructions each: more than the encryption of the byte. A block may lie at any
 * address. A move to a higher address within the same bytes is short here (an insertion
 * into a table), so it stays a loop of bytes. */

typedef __SIZE_TYPE__ size;
typedef unsigned long word;
typedef word block __attribute__((vector_size(16)));
typedef word any_word __attribute__((aligned(1), may_alias));
typedef block any_block __attribute__((aligned(1), may_alias));

/* The loops must not become calls of these functions. */
#ifdef __clang__
__attribute__((no_builtin("memmove", "memcpy")))
#endif
void *memmove(void *to, const void *from, size n)
{
	unsigned char *t = to, *end;
	const unsigned char *f = from;
	word last;

	if ((size)t - (size)f < n) {
		while (n--)
			t[n] = f[n];
		return to;
	}
	if (n < sizeof(word)) {
		while (n--)
			*t++ = *f++;
		return to;
	}
	/* Read first: the loops may write over it. */
	last = *(const any_word *)(f + n - sizeof(word));
	end = t + n - sizeof(word);
	for (; n >= sizeof(block); n -= sizeof(block), t += sizeof(block), f += sizeof(block))
		*(any_block *)t = *(const any_block *)f;
	for (; n >= sizeof(word); n -= sizeof(word), t += sizeof(word), f += sizeof(word))
		*(any_word *)t = *(const any_word *)f;
	*(any_word *)end = last;
	return to;
}

void *memcpy(void *to, const void *from, size n) __attribute__((alias("memmove")));
