/* Reporting: small files that readers never see half-written, and errors that name
 * the step and the thing it failed on.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXIT_SETUP	128 /* the container's surroundings could not be made */
#define EXIT_NO_COMMAND 127
#define EXIT_NO_EXEC	126

/* Where a process that is about to become the container reports why it could not:
 * the shim's pipe, or standard error when a person is watching.
 */
static int report_fd = STDERR_FILENO;

/* A file name or argument, safe to print in one line. */
static void print_safe(char *out, size_t size, const char *text)
{
	size_t used = 0;

	for (; *text && used + 1 < size; text++)
		out[used++] = *text < ' ' ? '?' : *text;
	out[used] = '\0';
}

/* Report "errno step subject" and exit: the reader turns errno into its name. */
static _Noreturn void die(int status, const char *step, const char *subject)
{
	int error = errno;
	char safe[256], line[400];

	print_safe(safe, sizeof(safe), subject);
	if (report_fd == STDERR_FILENO)
		snprintf(line, sizeof(line), "%s %s: %s\n", step, safe,
			 strerror(error));
	else
		snprintf(line, sizeof(line), "%d %d %s %s", status, error, step, safe);
	if (write(report_fd, line, strlen(line)) < 0)
		_exit(EXIT_SETUP);
	_exit(status);
}

static void need(int result, const char *step, const char *subject)
{
	if (result < 0)
		die(EXIT_SETUP, step, subject);
}

/* Write a control file of the kernel (cgroup.procs, cgroup.kill) below a directory. */
static int control(const char *directory, const char *name, const char *value)
{
	char path[4096];
	int fd, result;

	if (snprintf(path, sizeof(path), "%s/%s", directory, name) >=
	    (int)sizeof(path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	result = write(fd, value, strlen(value)) < 0 ? -1 : 0;
	close(fd);
	return result;
}

/* Write a whole file or none: aside, then renamed. */
__attribute__((format(printf, 2, 3))) static void publish(const char *name,
							  const char *format, ...)
{
	char aside[64];
	va_list arguments;
	FILE *file;

	snprintf(aside, sizeof(aside), ".%s", name);
	file = fopen(aside, "we");
	if (!file)
		die(EXIT_SETUP, "write", name);
	va_start(arguments, format);
	vfprintf(file, format, arguments);
	va_end(arguments);
	if (fclose(file) != 0)
		die(EXIT_SETUP, "write", name);
	need(rename(aside, name), "rename", name);
}

/* Start time of a process in clock ticks since boot: with the pid it names one process
 * for ever. 0 when there is no such process.
 */
static unsigned long long start_time(pid_t pid)
{
	unsigned long long ticks = 0;
	char path[32], stat[1024];
	char *field;
	ssize_t size;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	size = read(fd, stat, sizeof(stat) - 1);
	close(fd);
	if (size <= 0)
		return 0;
	stat[size] = '\0';
	field = strrchr(stat, ')'); /* the name, field 2, may hold anything */
	for (int number = 2; field && number < 22; number++)
		field = strchr(field + 1, ' ');
	if (field)
		ticks = strtoull(field + 1, NULL, 10);
	return ticks;
}
