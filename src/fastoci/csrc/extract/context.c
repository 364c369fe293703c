/* Failures: which path is at fault, and what a call does when the extractor is closed, or has failed before. */
#include "extract/context.h"

#include "tar/tar.h"

#include <stdlib.h>
#include <string.h>

/* The path of a directory that failed at the end, when the reader's entry is not the one at fault. */
static struct tar_bytes directory_path(const struct node *directory, char **memory)
{
    size_t len = 0, at;

    for (const struct node *node = directory; node->parent; node = node->parent)
        len += strlen(node->name) + 1;
    if (!(*memory = malloc(len + 1)))
        return (struct tar_bytes){NULL, 0};
    at = len;
    for (const struct node *node = directory; node->parent; node = node->parent) {
        at -= strlen(node->name) + 1;
        memcpy(*memory + at, node->name, strlen(node->name));
        (*memory)[at + strlen(node->name)] = '/';
    }
    return (struct tar_bytes){(const uint8_t *)*memory, len};
}

int extract_failed_here(struct extract *ex, int code)
{
    struct tar_bytes path = tar_path(ex->tar);
    char *memory = NULL;

    if (!code || ex->layer.facts.code)
        return ex->layer.facts.code;
    if (ex->fault)
        path = directory_path(ex->fault, &memory);
    layer_failed(&ex->layer, code, tar_offset(ex->tar), code >= LAYER_IO ? ex->layer.value : tar_value(ex->tar), path);
    free(memory);
    ex->writer->failed(ex);
    return code;
}

int extract_usable(struct extract *ex)
{
    if (ex->closed)
        return ex->layer.facts.code ? ex->layer.facts.code : (ex->layer.facts.code = LAYER_CLOSED);
    ex->layer.value = ex->start_error;
    return ex->start_error ? extract_failed_here(ex, LAYER_IO) : ex->layer.facts.code;
}
