/*
 * A player that does in a guest what aplay does not: stops in the middle, lets the ring run dry, asks for a pause, sets
 * parameters of an open stream anew. It calls the kernel directly, because libasound frees the parameters of a stream
 * before it sets others, and so hides the very case in which the driver opens a stream twice.
 *
 * pcm RATE WAVFILE STEP...: does the steps in their order with hw:0,0 and this file of 16-bit stereo. After each it
 * prints a line with its name, the error's name or "ok", and where the stream then is; a step that fails is not the end.
 *
 *   params PERIOD BUFFER  hw_params in frames; those of before are not freed
 *   write FRAMES          the file's next frames, after an underrun into the stream prepared anew; 0: the rest
 *   dry                   waits until the kernel has stopped the stream for want of frames
 *   play FRAMES           waits until so many of the frames written since the last start have been played
 *   pause                 asks for a pause, as of a card that can
 *   drop                  stops at once; the next frame of the file is the first one that was not played
 *   drain                 waits until all was played
 *
 * Build: cc -static -O2 -Wall -Wextra -Werror -o pcm pcm.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <sound/asound.h>

#define FRAME 4
/* Of a WAV file as the lab's signals are. */
#define HEADER 44
#define GIVE_UP_MS 10000

static int pcm;
static unsigned rate;
static const char *frames;
static snd_pcm_uframes_t length, place;
/* Frames of the file that were written before the stream was last prepared. */
static snd_pcm_uframes_t base;

static _Noreturn void fail(const char *what)
{
	perror(what);
	exit(1);
}

static struct snd_pcm_status status(void)
{
	struct snd_pcm_status status = { 0 };

	if (ioctl(pcm, SNDRV_PCM_IOCTL_STATUS, &status))
		fail("STATUS");
	return status;
}

static void set_interval(struct snd_pcm_hw_params *params, int which, unsigned value)
{
	struct snd_interval *interval = &params->intervals[which - SNDRV_PCM_HW_PARAM_FIRST_INTERVAL];

	interval->min = interval->max = value;
	interval->integer = 1;
}

static void set_mask(struct snd_pcm_hw_params *params, int which, unsigned value)
{
	struct snd_mask *mask = &params->masks[which - SNDRV_PCM_HW_PARAM_FIRST_MASK];

	memset(mask, 0, sizeof(*mask));
	mask->bits[value / 32] = 1u << value % 32;
}

static int prepare(void)
{
	base = place;
	return ioctl(pcm, SNDRV_PCM_IOCTL_PREPARE);
}

static int set_params(unsigned period, unsigned buffer)
{
	struct snd_pcm_hw_params hw;
	struct snd_pcm_sw_params sw = {
		.period_step = 1, .avail_min = period, .start_threshold = buffer, .stop_threshold = buffer,
	};
	int which;

	memset(&hw, 0, sizeof(hw));
	memset(hw.masks, 0xff, sizeof(hw.masks));
	for (which = SNDRV_PCM_HW_PARAM_FIRST_INTERVAL; which <= SNDRV_PCM_HW_PARAM_LAST_INTERVAL; which++)
		hw.intervals[which - SNDRV_PCM_HW_PARAM_FIRST_INTERVAL].max = ~0u;
	hw.rmask = ~0u;
	set_mask(&hw, SNDRV_PCM_HW_PARAM_ACCESS, SNDRV_PCM_ACCESS_RW_INTERLEAVED);
	set_mask(&hw, SNDRV_PCM_HW_PARAM_FORMAT, SNDRV_PCM_FORMAT_S16_LE);
	set_interval(&hw, SNDRV_PCM_HW_PARAM_CHANNELS, 2);
	set_interval(&hw, SNDRV_PCM_HW_PARAM_RATE, rate);
	set_interval(&hw, SNDRV_PCM_HW_PARAM_PERIOD_SIZE, period);
	set_interval(&hw, SNDRV_PCM_HW_PARAM_BUFFER_SIZE, buffer);
	if (ioctl(pcm, SNDRV_PCM_IOCTL_HW_PARAMS, &hw))
		return -1;
	printf("can mmap: %d, can pause: %d, can resume: %d\n", !!(hw.info & SNDRV_PCM_INFO_MMAP),
	       !!(hw.info & SNDRV_PCM_INFO_PAUSE), !!(hw.info & SNDRV_PCM_INFO_RESUME));
	return ioctl(pcm, SNDRV_PCM_IOCTL_SW_PARAMS, &sw) ? -1 : prepare();
}

static int write_frames(snd_pcm_uframes_t count)
{
	snd_pcm_uframes_t end = count && count < length - place ? place + count : length;

	while (place < end) {
		struct snd_xferi transfer = { .buf = (void *)(frames + place * FRAME), .frames = end - place };
		int result = ioctl(pcm, SNDRV_PCM_IOCTL_WRITEI_FRAMES, &transfer);

		/* The kernel tells of an underrun after frames that it took by a second call. */
		place += transfer.result > 0 ? transfer.result : 0;
		if (!result)
			continue;
		if (errno != EPIPE)
			return -1;
		printf("underrun at %lu\n", place);
		if (prepare())
			return -1;
	}
	return 0;
}

static snd_pcm_uframes_t played(void)
{
	return base + status().hw_ptr;
}

static int is_dry(snd_pcm_uframes_t unused)
{
	(void)unused;
	return status().state == SNDRV_PCM_STATE_XRUN;
}

static int has_played(snd_pcm_uframes_t count)
{
	return status().hw_ptr >= count;
}

static int wait_until(int (*is_so)(snd_pcm_uframes_t), snd_pcm_uframes_t count)
{
	const struct timespec tick = { .tv_nsec = 2000000 };
	int ticks;

	for (ticks = 0; ticks < GIVE_UP_MS / 2; ticks++) {
		if (is_so(count))
			return 0;
		nanosleep(&tick, NULL);
	}
	errno = ETIME;
	return -1;
}

static int drop(void)
{
	snd_pcm_uframes_t at = played();

	if (ioctl(pcm, SNDRV_PCM_IOCTL_DROP))
		return -1;
	place = at;
	return prepare();
}

int main(int count, char **words)
{
	const char *name = "steps";
	struct stat file;
	char *map;
	int fd, i;

	if (count < 4) {
		fprintf(stderr, "pcm RATE WAVFILE STEP...\n");
		return 2;
	}
	rate = strtoul(words[1], NULL, 10);
	fd = open(words[2], O_RDONLY);
	if (fd < 0 || fstat(fd, &file))
		fail(words[2]);
	length = (file.st_size - HEADER) / FRAME;
	map = mmap(NULL, file.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		fail(words[2]);
	frames = map + HEADER;
	pcm = open("/dev/snd/pcmC0D0p", O_RDWR);
	if (pcm < 0)
		fail("/dev/snd/pcmC0D0p");

	for (i = 3; i < count; i++) {
		/* The words after a step; none of them is read beyond the terminating null. */
		snd_pcm_uframes_t number = i + 1 < count ? strtoul(words[i + 1], NULL, 10) : 0;
		struct snd_pcm_status now;
		int result;

		name = words[i];
		if (!strcmp(name, "params")) {
			result = set_params(number, i + 2 < count ? strtoul(words[i + 2], NULL, 10) : 0);
			i += 2;
		} else if (!strcmp(name, "write")) {
			result = write_frames(number);
			i++;
		} else if (!strcmp(name, "dry")) {
			result = wait_until(is_dry, 0);
		} else if (!strcmp(name, "play")) {
			result = wait_until(has_played, number);
			i++;
		} else if (!strcmp(name, "pause")) {
			result = ioctl(pcm, SNDRV_PCM_IOCTL_PAUSE, 1);
		} else if (!strcmp(name, "drop")) {
			result = drop();
		} else if (!strcmp(name, "drain")) {
			result = ioctl(pcm, SNDRV_PCM_IOCTL_DRAIN);
		} else {
			fprintf(stderr, "no such step: %s\n", name);
			return 2;
		}
		printf("%s: %s", name, result ? strerrorname_np(errno) : "ok");
		now = status();
		printf(", state %d, written %lu, played %lu\n", now.state, base + now.appl_ptr, base + now.hw_ptr);
	}
	return 0;
}
