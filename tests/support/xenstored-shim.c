/*
 * Lets xenstored run where there is no Xen: preloaded, it stands in for the libraries of Xen that xenstored calls. Only
 * clients of the socket exist then, and they all act as Dom0.
 *
 * Build: cc -shared -fPIC -o xenstored-shim.so xenstored-shim.c
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>

/* Every handle is this address; nobody looks behind it. */
static char handle;

/* ---- Event channels: a file that never becomes readable. ---- */

static int events = -1;

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger, unsigned int flags)
{
    (void)logger, (void)flags;
    events = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return events < 0 ? NULL : (xenevtchn_handle *)&handle;
}

int xenevtchn_fd(xenevtchn_handle *xce)
{
    (void)xce;
    return events;
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *xce, uint32_t domid, evtchn_port_t remote)
{
    (void)xce, (void)remote;
    return (xenevtchn_port_or_error_t)(16 + domid);
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *xce, unsigned int virq)
{
    (void)xce, (void)virq;
    return 8;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce)
{
    (void)xce;
    errno = EAGAIN;
    return -1;
}

int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce, (void)port;
    return 0;
}

int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce, (void)port;
    return 0;
}

int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce, (void)port;
    return 0;
}

/* ---- Grants: private pages. ---- */

xengnttab_handle *xengnttab_open(struct xentoollog_logger *logger, unsigned int flags)
{
    (void)logger, (void)flags;
    return (xengnttab_handle *)&handle;
}

int xengnttab_close(xengnttab_handle *xgt)
{
    (void)xgt;
    return 0;
}

int xengnttab_set_max_grants(xengnttab_handle *xgt, uint32_t count)
{
    (void)xgt, (void)count;
    return 0;
}

void *xengnttab_map_grant_ref(xengnttab_handle *xgt, uint32_t domid, uint32_t ref, int prot)
{
    (void)xgt, (void)domid, (void)ref;
    void *page = mmap(NULL, XC_PAGE_SIZE, prot, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return page == MAP_FAILED ? NULL : page;
}

int xengnttab_unmap(xengnttab_handle *xgt, void *start, uint32_t count)
{
    (void)xgt;
    return munmap(start, (size_t)count * XC_PAGE_SIZE);
}

/* ---- Domains: Dom0 and nothing else. ---- */

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *dombuild, unsigned int flags)
{
    (void)logger, (void)dombuild, (void)flags;
    return (xc_interface *)&handle;
}

int xc_interface_close(xc_interface *xch)
{
    (void)xch;
    return 0;
}

int xc_domain_getinfo(xc_interface *xch, uint32_t first, unsigned int count, xc_dominfo_t *info)
{
    (void)xch;
    if (first > 0 || count == 0)
        return 0;
    memset(info, 0, sizeof(*info));
    info->running = 1;
    return 1;
}

/* ---- The two files of /proc/xen through which a kernel tells where its ring is. ---- */

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    if (strcmp(path, "/proc/xen/xsd_kva") == 0) {
        int file = memfd_create("xsd_kva", MFD_CLOEXEC);
        if (file >= 0 && ftruncate(file, XC_PAGE_SIZE) < 0)
            return -1;
        return file;
    }
    if (strcmp(path, "/proc/xen/xsd_port") == 0) {
        int file = memfd_create("xsd_port", MFD_CLOEXEC);
        if (file >= 0 && (write(file, "1\n", 2) != 2 || lseek(file, 0, SEEK_SET) != 0))
            return -1;
        return file;
    }
    int (*real_open)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    return real_open(path, flags, mode);
}
