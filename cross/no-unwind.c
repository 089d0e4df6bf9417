/* Replaces libunwind: the programs abort on a panic and have no unwind tables, so a
 * real one would find nothing. It needs 29 KB, and 12 KB of the C library. A backtrace
 * is empty. Functions that only an unwinder would call exist for the linker. */

typedef int (*trace)(void *context, void *argument);

enum { END_OF_STACK = 5, FAILED = 2 };

int _Unwind_Backtrace(trace step, void *argument)
{
	(void)step;
	(void)argument;
	return END_OF_STACK;
}

#define NOTHING(type, name) \
	type name(void *context) \
	{ \
		(void)context; \
		return 0; \
	}
NOTHING(unsigned long, _Unwind_GetIP)
NOTHING(unsigned long, _Unwind_GetCFA)
NOTHING(unsigned long, _Unwind_GetRegionStart)
NOTHING(unsigned long, _Unwind_GetTextRelBase)
NOTHING(unsigned long, _Unwind_GetDataRelBase)
NOTHING(void *, _Unwind_GetLanguageSpecificData)
NOTHING(void *, _Unwind_FindEnclosingFunction)

unsigned long _Unwind_GetIPInfo(void *context, int *before)
{
	(void)context;
	*before = 0;
	return 0;
}

unsigned long _Unwind_GetGR(void *context, int index)
{
	(void)context;
	(void)index;
	return 0;
}

void _Unwind_SetGR(void *context, int index, unsigned long value)
{
	(void)context;
	(void)index;
	(void)value;
}

void _Unwind_SetIP(void *context, unsigned long value)
{
	(void)context;
	(void)value;
}

int _Unwind_RaiseException(void *exception)
{
	(void)exception;
	return END_OF_STACK;
}

void _Unwind_DeleteException(void *exception)
{
	(void)exception;
}

void _Unwind_Resume(void *exception)
{
	(void)exception;
	__builtin_trap();
}

#ifdef __arm__
/* ARM's own tables have other ways in. */
int _Unwind_VRS_Get(void *context, int class, unsigned number, int kind, void *value)
{
	(void)context;
	(void)class;
	(void)number;
	(void)kind;
	(void)value;
	return FAILED;
}

int _Unwind_VRS_Set(void *context, int class, unsigned number, int kind, void *value)
{
	return _Unwind_VRS_Get(context, class, number, kind, value);
}

void __aeabi_unwind_cpp_pr0(void)
{
}

void __aeabi_unwind_cpp_pr1(void)
{
}
#endif

/* The standard library calls this for the text of an error. musl's own uses snprintf,
 * which no other code needs: 14 KB. */
char *strerror(int number);

int __xpg_strerror_r(int number, char *buffer, unsigned long room)
{
	const char *words = strerror(number);
	unsigned long n = 0;

	while (words[n] && n + 1 < room) {
		buffer[n] = words[n];
		n++;
	}
	if (room)
		buffer[n] = 0;
	return words[n] ? 34 /* ERANGE */ : 0;
}

int strerror_r(int number, char *buffer, unsigned long room)
{
	return __xpg_strerror_r(number, buffer, room);
}

/* The same for a thread's name: a thread here names itself alone, which is one
 * system call. */
int prctl(int option, ...);

int pthread_setname_np(void *thread, const char *name)
{
	(void)thread;
	return prctl(15 /* PR_SET_NAME */, name, 0UL, 0UL, 0UL) ? 22 /* EINVAL */ : 0;
}
