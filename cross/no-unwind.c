/* Stands in for libunwind: the programs abort on a panic and carry no unwind
 * tables, so a real one would find nothing; it is 29 KB, and 12 KB more of the
 * C library that it alone uses. A backtrace, if asked for, is empty. */

typedef int (*trace)(void *context, void *argument);

int _Unwind_Backtrace(trace step, void *argument)
{
	(void)step;
	(void)argument;
	return 5; /* end of stack */
}

unsigned long _Unwind_GetIP(void *context)
{
	(void)context;
	return 0;
}

unsigned long _Unwind_GetCFA(void *context)
{
	(void)context;
	return 0;
}

void *_Unwind_FindEnclosingFunction(void *pc)
{
	(void)pc;
	return 0;
}

/* The same for ARM's own tables. */
int _Unwind_VRS_Get(void *context, int class, unsigned number, int kind, void *value)
{
	(void)context;
	(void)class;
	(void)number;
	(void)kind;
	(void)value;
	return 2; /* failed */
}
#ifdef __arm__
void __aeabi_unwind_cpp_pr0(void)
{
}

void __aeabi_unwind_cpp_pr1(void)
{
}
#endif
