/* Log: what a container prints, one record a line, as the CRI writes it:
 * "2026-11-23T08:00:00.123456789Z stdout F text"; P marks a line that goes on in the
 * next record. At LOG_BYTES the file becomes FILE.1, which replaces the one before.
 */
#pragma once

#include "report.h"

#include <sys/stat.h>

#define LINE_BYTES   16384 /* containerd's limit: longer lines are split */
#define LOG_BYTES    (10 << 20)
#define BUFFER_BYTES 65536
#define HEADER_BYTES 64

struct log {
	const char *path;
	int fd;
	off_t size;
	size_t used;
	char buffer[BUFFER_BYTES]; /* whole records only */
};

struct stream {
	int fd; /* -1 when closed */
	const char *name;
	size_t used;
	char line[LINE_BYTES];
};

static int log_open(struct log *log)
{
	struct stat stat;
	int fd = open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);

	if (fd < 0 || fstat(fd, &stat) < 0)
		return -1;
	log->fd = fd;
	log->size = stat.st_size;
	return 0;
}

static void log_rotate(struct log *log)
{
	char previous[4096];
	int fd = log->fd;

	snprintf(previous, sizeof(previous), "%s.1", log->path);
	if (rename(log->path, previous) < 0)
		return; /* the log was removed: what is open serves until the end */
	if (log_open(log) == 0)
		close(fd);
}

/* A full disk costs records, never a torn one, and never stops the container. */
static void log_flush(struct log *log)
{
	size_t done = 0;
	ssize_t wrote;

	while (done < log->used) {
		wrote = write(log->fd, log->buffer + done, log->used - done);
		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote <= 0) {
			if (ftruncate(log->fd, log->size) < 0)
				done = 0; /* nothing else to try */
			break;
		}
		done += wrote;
	}
	if (done == log->used)
		log->size += done;
	log->used = 0;
	if (log->size >= LOG_BYTES)
		log_rotate(log);
}

static void log_record(struct log *log, const struct stream *stream, char tag,
		       size_t size)
{
	struct timespec now;
	struct tm utc;
	char *out;

	if (log->used + HEADER_BYTES + size + 1 > sizeof(log->buffer))
		log_flush(log);
	out = log->buffer + log->used;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	out += strftime(out, HEADER_BYTES, "%Y-%m-%dT%H:%M:%S", &utc);
	out += snprintf(out, HEADER_BYTES - 20, ".%09ldZ %s %c ", now.tv_nsec,
			stream->name, tag);
	memcpy(out, stream->line, size);
	out[size] = '\n';
	log->used = out + size + 1 - log->buffer;
}

/* Turn complete lines into records and keep the rest for the next read. */
static void stream_lines(struct stream *stream, struct log *log)
{
	char *newline;
	size_t size;

	while ((newline = memchr(stream->line, '\n', stream->used))) {
		size = newline - stream->line;
		log_record(log, stream, 'F', size);
		stream->used -= size + 1;
		memmove(stream->line, newline + 1, stream->used);
	}
	if (stream->used == sizeof(stream->line)) {
		log_record(log, stream, 'P', stream->used);
		stream->used = 0;
	}
}

static void stream_close(struct stream *stream, struct log *log)
{
	if (stream->used)
		log_record(log, stream, 'F', stream->used);
	stream->used = 0;
	close(stream->fd);
	stream->fd = -1;
}

/* Take what the container printed; false when there is nothing more to come, or now. */
static int stream_read(struct stream *stream, struct log *log)
{
	ssize_t size = read(stream->fd, stream->line + stream->used,
			    sizeof(stream->line) - stream->used);

	if (size < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (size <= 0) {
		stream_close(stream, log);
	} else {
		stream->used += size;
		stream_lines(stream, log);
	}
	log_flush(log);
	return size > 0;
}
