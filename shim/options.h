/* Options: the command line of the shim, as a container. */
#pragma once

#include "container.h"

#include <getopt.h>
#include <stddef.h>

/* Options that are one string say where it goes; the others have a number. */
#define TEXT 1024
#define TEXT_OPTION(name, field)                                                       \
	{name, required_argument, NULL, TEXT + offsetof(struct container, field)}

enum { BIND = 1, HIDE, DECOY_AT, PID, START, USER, GROUP, GROUPS, NO_NEW_PRIVS };

static const struct option OPTIONS[] = {
    TEXT_OPTION("state", state),
    TEXT_OPTION("log", log),
    TEXT_OPTION("cgroup", cgroup),
    TEXT_OPTION("shims", shims),
    TEXT_OPTION("netns", netns),
    TEXT_OPTION("hostname", hostname),
    TEXT_OPTION("etc", etc),
    TEXT_OPTION("workdir", workdir),
    TEXT_OPTION("keep", kept),
    {"bind", required_argument, NULL, BIND},
    {"hide", required_argument, NULL, HIDE},
    {"decoy", required_argument, NULL, DECOY_AT},
    {"pid", required_argument, NULL, PID},
    {"start", required_argument, NULL, START},
    {"uid", required_argument, NULL, USER},
    {"gid", required_argument, NULL, GROUP},
    {"groups", required_argument, NULL, GROUPS},
    {"no-new-privs", no_argument, NULL, NO_NEW_PRIVS},
    {0},
};

static _Noreturn void usage(const char *what)
{
	errno = EINVAL;
	die(EXIT_SETUP, "usage:", what);
}

static unsigned long long number(const char *text)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	if (end == text || *end)
		usage(text);
	return value;
}

static void parse_groups(struct container *c, char *list)
{
	char *rest = NULL;

	for (char *item = strtok_r(list, ",", &rest); item;
	     item = strtok_r(NULL, ",", &rest)) {
		if (c->group_count == GROUPS_MAX)
			usage("too many groups");
		c->groups[c->group_count++] = number(item);
	}
}

static void add(const char **list, int *count, int most, const char *value)
{
	if (*count == most)
		usage("too many of one kind");
	list[(*count)++] = value;
}

static void parse_option(struct container *c, int option, char *value)
{
	switch (option) {
	case BIND:
		return add(c->binds, &c->bind_count, BINDS_MAX, value);
	case HIDE:
		return add(c->hidden, &c->hidden_count, HIDDEN_MAX, value);
	case DECOY_AT:
		return add(c->decoys, &c->decoy_count, DECOYS_MAX, value);
	case PID:
		c->pid = number(value);
		return;
	case START:
		c->start = number(value);
		return;
	case USER:
		c->uid = number(value);
		return;
	case GROUP:
		c->gid = number(value);
		return;
	case GROUPS:
		return parse_groups(c, value);
	case NO_NEW_PRIVS:
		c->no_new_privs = 1;
		return;
	default:
		usage("unknown option, see shim/shim.c");
	}
}

static void parse(struct container *c, int argc, char **argv)
{
	int option;

	while ((option = getopt_long(argc, argv, "+", OPTIONS, NULL)) != -1) {
		if (option >= TEXT)
			*(const char **)((char *)c + option - TEXT) = optarg;
		else
			parse_option(c, option, optarg);
	}
	c->argv = argv + optind;
	if (!c->argv[0] || !c->cgroup)
		usage("a command and --cgroup are needed");
}
