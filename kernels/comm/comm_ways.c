#include "kernels/comm/comm_ways.h"

#include <string.h>

#define ROW(way, name, device, whole, split) [way] = {name, device, whole, split},

static const struct {
    const char *name;
    kern_device device;
    bool whole, split;
} ways[COMM_N_WAYS] = {COMM_WAYS(ROW)};

const char *comm_way_name(comm_way way)
{
    return ways[way].name;
}

kern_device comm_way_device(comm_way way)
{
    return ways[way].device;
}

bool comm_way_takes(comm_way way, bool split_weights)
{
    return split_weights ? ways[way].split : ways[way].whole;
}

comm_way comm_way_find(const char *name)
{
    int32_t way = 0;
    while (way < COMM_N_WAYS && strcmp(ways[way].name, name) != 0) {
        way++;
    }
    return (comm_way)way;
}
