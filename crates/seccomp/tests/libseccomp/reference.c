/* SPDX-License-Identifier: Apache-2.0
 *
 * libseccomp as the test's reference: a profile on standard input, its program
 * on standard output, one word at a time so that nothing needs parsing.
 *
 *   numbers ARCH NAME...             prints "NAME NUMBER" a line, negative for none
 *   compile DEFAULT ARCH... - < rules   each rule is
 *       ACTION NAME COUNT (INDEX OPERATOR A B)...
 */
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what, int rc)
{
	fprintf(stderr, "%s: %s\n", what, strerror(-rc));
	return 1;
}

static int numbers(int argc, char **argv)
{
	uint32_t arch = strtoul(argv[2], NULL, 0);

	for (int i = 3; i < argc; i++)
		printf("%s %d\n", argv[i], seccomp_syscall_resolve_name_arch(arch, argv[i]));
	return 0;
}

static int compile(int argc, char **argv)
{
	uint32_t action;
	char name[64];
	unsigned int count;
	int rc;

	/* What the kernel below supports is not asked here. */
	seccomp_api_set(6);
	scmp_filter_ctx ctx = seccomp_init(strtoul(argv[2], NULL, 0));
	if (!ctx)
		return fail("seccomp_init", -ENOMEM);
	rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (rc)
		return fail("SCMP_FLTATR_ACT_BADARCH", rc);
	seccomp_arch_remove(ctx, SCMP_ARCH_NATIVE);
	for (int i = 3; i < argc; i++) {
		rc = seccomp_arch_add(ctx, strtoul(argv[i], NULL, 0));
		if (rc)
			return fail("seccomp_arch_add", rc);
	}
	while (scanf("%" SCNi32 " %63s %u", (int32_t *)&action, name, &count) == 3) {
		struct scmp_arg_cmp args[6];

		for (unsigned int i = 0; i < count; i++) {
			unsigned int index, op;

			if (i == 6 || scanf("%u %u %" SCNu64 " %" SCNu64, &index, &op, &args[i].datum_a,
					    &args[i].datum_b) != 4)
				return fail("a rule", -EINVAL);
			args[i].arg = index;
			args[i].op = op;
		}
		int number = seccomp_syscall_resolve_name(name);
		/* A name that libseccomp doesn't know is nothing to it. */
		if (number == __NR_SCMP_ERROR)
			continue;
		rc = seccomp_rule_add_array(ctx, action, number, count, args);
		if (rc)
			return fail(name, rc);
	}
	rc = seccomp_export_bpf(ctx, 1);
	return rc ? fail("seccomp_export_bpf", rc) : 0;
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "numbers"))
		return numbers(argc, argv);
	if (argc > 2 && !strcmp(argv[1], "compile"))
		return compile(argc, argv);
	return fail("usage", -EINVAL);
}
