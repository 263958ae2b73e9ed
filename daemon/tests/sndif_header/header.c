/*
 * Says what Xen's own headers make of sndif: constants, packets, and pages after a given course of events, for main.rs
 * to compare with. One line each: a name and a value, packets and pages in hexadecimal.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Older interfaces of the ring macros take the barriers by other names. */
#define __XEN_INTERFACE_VERSION__ 0x00040700

#define xen_mb() __sync_synchronize()
#define xen_rmb() __sync_synchronize()
#define xen_wmb() __sync_synchronize()

#include <xen/errno.h>
#include <xen/io/sndif.h>
#include <xen/io/xenbus.h>

#define NUMBER(name) printf("%s %ld\n", #name, (long)(name))
#define TEXT(name) printf("%s %s\n", #name, name)
#define FORMAT(name) printf("format %d %s\n", XENSND_PCM_FORMAT_##name, XENSND_PCM_FORMAT_##name##_STR)

static void hex(const char *name, const void *data, size_t len)
{
    const uint8_t *octets = data;

    printf("%s ", name);
    for (size_t i = 0; i < len; i++)
        printf("%02x", octets[i]);
    printf("\n");
}

static struct xensnd_req request(uint16_t id, uint8_t operation)
{
    struct xensnd_req req;

    memset(&req, 0, sizeof(req));
    req.id = id;
    req.operation = operation;
    return req;
}

static void spans(void)
{
    static const struct { const char *name; uint8_t operation; } kinds[] = {
        { "read", XENSND_OP_READ }, { "write", XENSND_OP_WRITE },
        { "set_volume", XENSND_OP_SET_VOLUME }, { "get_volume", XENSND_OP_GET_VOLUME },
        { "mute", XENSND_OP_MUTE }, { "unmute", XENSND_OP_UNMUTE },
    };

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct xensnd_req req = request(0x0102, kinds[i].operation);

        req.op.rw.offset = 0x11121314;
        req.op.rw.length = 0x21222324;
        hex(kinds[i].name, &req, sizeof(req));
    }
}

static void triggers(void)
{
    static const struct { const char *name; uint8_t type; } kinds[] = {
        { "start", XENSND_OP_TRIGGER_START }, { "pause", XENSND_OP_TRIGGER_PAUSE },
        { "stop", XENSND_OP_TRIGGER_STOP }, { "resume", XENSND_OP_TRIGGER_RESUME },
    };

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct xensnd_req req = request(0x0102, XENSND_OP_TRIGGER);

        req.op.trigger.type = kinds[i].type;
        hex(kinds[i].name, &req, sizeof(req));
    }
}

static struct xensnd_query_hw_param hw_param(void)
{
    struct xensnd_query_hw_param param = {
        .formats = 0x0102030405060708ull,
        .rates = { 0x11121314, 0x21222324 },
        .channels = { 0x31323334, 0x41424344 },
        .buffer = { 0x51525354, 0x61626364 },
        .period = { 0x71727374, 0x81828384 },
    };

    return param;
}

static void packets(void)
{
    struct xensnd_req req = request(0x0102, XENSND_OP_OPEN);
    struct xensnd_resp resp;
    struct xensnd_evt evt;

    req.op.open.pcm_rate = 0x11121314;
    req.op.open.pcm_format = 0x15;
    req.op.open.pcm_channels = 0x16;
    req.op.open.buffer_sz = 0x21222324;
    req.op.open.gref_directory = 0x31323334;
    req.op.open.period_sz = 0x41424344;
    hex("open", &req, sizeof(req));

    req = request(0x0102, XENSND_OP_CLOSE);
    hex("close", &req, sizeof(req));

    spans();
    triggers();

    req = request(0x0102, XENSND_OP_HW_PARAM_QUERY);
    req.op.hw_param = hw_param();
    hex("hw_param_query", &req, sizeof(req));

    memset(&resp, 0, sizeof(resp));
    resp.id = 0x0102;
    resp.operation = XENSND_OP_HW_PARAM_QUERY;
    resp.resp.hw_param = hw_param();
    hex("hw_param_response", &resp, sizeof(resp));

    memset(&resp, 0, sizeof(resp));
    resp.id = 0x0102;
    resp.operation = XENSND_OP_OPEN;
    resp.status = -XEN_EINVAL;
    hex("refusal", &resp, sizeof(resp));

    memset(&evt, 0, sizeof(evt));
    evt.id = 0x0102;
    evt.type = XENSND_EVT_CUR_POS;
    evt.op.cur_pos.position = 0x0102030405060708ull;
    hex("event", &evt, sizeof(evt));
}

/* Three requests, of which two are taken and one is answered; then both ends check before they would sleep. */
static void ring_page(void)
{
    static uint8_t page[4096] __attribute__((aligned(4096)));
    struct xen_sndif_sring *sring = (void *)page;
    struct xen_sndif_front_ring front;
    struct xen_sndif_back_ring back;
    struct xensnd_req req;
    struct xensnd_resp resp;
    int notify, more;

    SHARED_RING_INIT(sring);
    FRONT_RING_INIT(&front, sring, sizeof(page));
    BACK_RING_INIT(&back, sring, sizeof(page));
    hex("ring_fresh", page, sizeof(page));

    for (uint16_t id = 0; id < 3; id++) {
        req = request(id, XENSND_OP_CLOSE);
        *RING_GET_REQUEST(&front, front.req_prod_pvt) = req;
        front.req_prod_pvt++;
        RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&front, notify);
        printf("ring_notify_%d %d\n", id, !!notify);
    }
    hex("ring_requests", page, sizeof(page));

    for (int i = 0; i < 3; i++) {
        RING_COPY_REQUEST(&back, back.req_cons, &req);
        back.req_cons++;
    }
    RING_FINAL_CHECK_FOR_REQUESTS(&back, more);
    memset(&resp, 0, sizeof(resp));
    resp.operation = XENSND_OP_CLOSE;
    *RING_GET_RESPONSE(&back, back.rsp_prod_pvt) = resp;
    back.rsp_prod_pvt++;
    RING_PUSH_RESPONSES(&back);
    hex("ring_response", page, sizeof(page));

    front.rsp_cons++;
    RING_FINAL_CHECK_FOR_RESPONSES(&front, more);
    (void)more;
    hex("ring_idle", page, sizeof(page));
}

/* So many events that the slots have been used all round and one more; all but the last are confirmed. */
static void event_page(void)
{
    static uint8_t octets[4096] __attribute__((aligned(4096)));
    struct xensnd_event_page *page = (void *)octets;

    for (uint32_t i = 0; i < XENSND_IN_RING_LEN + 1; i++) {
        struct xensnd_evt evt;

        memset(&evt, 0, sizeof(evt));
        evt.id = i;
        evt.type = XENSND_EVT_CUR_POS;
        evt.op.cur_pos.position = i * 1000;
        XENSND_IN_RING_REF(page, page->in_prod) = evt;
        page->in_cons = page->in_prod;
        page->in_prod++;
    }
    hex("event_page", octets, sizeof(octets));
}

static void directory(void)
{
    static uint8_t octets[4096] __attribute__((aligned(4096)));
    struct xensnd_page_directory *page = (void *)octets;
    grant_ref_t *gref = (void *)(octets + offsetof(struct xensnd_page_directory, gref));

    page->gref_dir_next_page = 0x01020304;
    for (uint32_t i = 0; (uint8_t *)(gref + i) < octets + sizeof(octets); i++)
        gref[i] = 1000 + i;
    hex("directory", octets, sizeof(octets));
}

int main(void)
{
    NUMBER(XENSND_PROTOCOL_VERSION);
    NUMBER(XENSND_IN_RING_LEN);
    printf("ring_slots %d\n", (int)__CONST_RING_SIZE(xen_sndif, 4096));

    FORMAT(S8); FORMAT(U8); FORMAT(S16_LE); FORMAT(S16_BE); FORMAT(U16_LE); FORMAT(U16_BE);
    FORMAT(S24_LE); FORMAT(S24_BE); FORMAT(U24_LE); FORMAT(U24_BE); FORMAT(S32_LE); FORMAT(S32_BE);
    FORMAT(U32_LE); FORMAT(U32_BE); FORMAT(F32_LE); FORMAT(F32_BE); FORMAT(F64_LE); FORMAT(F64_BE);
    FORMAT(IEC958_SUBFRAME_LE); FORMAT(IEC958_SUBFRAME_BE); FORMAT(MU_LAW); FORMAT(A_LAW);
    FORMAT(IMA_ADPCM); FORMAT(MPEG); FORMAT(GSM);

    NUMBER(XEN_EPERM); NUMBER(XEN_ENOENT); NUMBER(XEN_EIO); NUMBER(XEN_ENOMEM); NUMBER(XEN_EBUSY);
    NUMBER(XEN_ENODEV); NUMBER(XEN_EINVAL); NUMBER(XEN_ENOSYS); NUMBER(XEN_ENODATA);
    NUMBER(XEN_EOPNOTSUPP); NUMBER(XEN_ETIMEDOUT);

    NUMBER(XenbusStateUnknown); NUMBER(XenbusStateInitialising); NUMBER(XenbusStateInitWait);
    NUMBER(XenbusStateInitialised); NUMBER(XenbusStateConnected); NUMBER(XenbusStateClosing);
    NUMBER(XenbusStateClosed); NUMBER(XenbusStateReconfiguring); NUMBER(XenbusStateReconfigured);

    TEXT(XENSND_DRIVER_NAME); TEXT(XENSND_LIST_SEPARATOR);
    TEXT(XENSND_FIELD_BE_VERSIONS); TEXT(XENSND_FIELD_FE_VERSION);
    TEXT(XENSND_FIELD_VCARD_SHORT_NAME); TEXT(XENSND_FIELD_VCARD_LONG_NAME);
    TEXT(XENSND_FIELD_RING_REF); TEXT(XENSND_FIELD_EVT_CHNL);
    TEXT(XENSND_FIELD_EVT_RING_REF); TEXT(XENSND_FIELD_EVT_EVT_CHNL);
    TEXT(XENSND_FIELD_DEVICE_NAME); TEXT(XENSND_FIELD_TYPE); TEXT(XENSND_FIELD_STREAM_UNIQUE_ID);
    TEXT(XENSND_FIELD_CHANNELS_MIN); TEXT(XENSND_FIELD_CHANNELS_MAX);
    TEXT(XENSND_FIELD_SAMPLE_RATES); TEXT(XENSND_FIELD_SAMPLE_FORMATS); TEXT(XENSND_FIELD_BUFFER_SIZE);
    TEXT(XENSND_STREAM_TYPE_PLAYBACK); TEXT(XENSND_STREAM_TYPE_CAPTURE);

    packets();
    ring_page();
    event_page();
    directory();
    return 0;
}
