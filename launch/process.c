#include "launch/process.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

base_status process_sibling(const char *name, char path_out[PROCESS_MAX_PATH])
{
    char self[PROCESS_MAX_PATH];
    char path[PROCESS_MAX_PATH];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) {
        return BASE_FAIL(BASE_IO, "/proc/self/exe: %s", strerror(errno));
    }
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    if ((size_t)snprintf(path, sizeof path, "%s/%s", self, name) >= sizeof path ||
        access(path, X_OK) != 0) {
        return BASE_FAIL(BASE_NOT_FOUND, "program %s is not beside this one in %s", name, self);
    }
    memcpy(path_out, path, sizeof path);
    return BASE_OK;
}

/* The child's side: never returns; tells the parent why through the pipe if exec fails. */
static void run_child(char *const argv[], int log_fd, pid_t parent, int report_fd)
{
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    /* Its own group, so that a Ctrl-C in the terminal reaches it through us, once and in order. */
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() == parent) {
        (void)dup2(log_fd, STDOUT_FILENO);
        (void)dup2(log_fd, STDERR_FILENO);
        (void)execvp(argv[0], argv);
    }
    const int why = errno;
    const ssize_t written = write(report_fd, &why, sizeof why);
    (void)written;
    _exit(127);
}

base_status process_start(char *const argv[], const char *log_path, pid_t *pid_out)
{
    base_status st = BASE_OK;
    int report[2] = {-1, -1};
    int log_fd = STDERR_FILENO;
    int why = 0;
    const pid_t parent = getpid();

    if (log_path != NULL) {
        log_fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (log_fd < 0) {
            return BASE_FAIL(BASE_IO, "%s: %s", log_path, strerror(errno));
        }
    }
    if (pipe2(report, O_CLOEXEC) != 0) {
        st = BASE_FAIL(BASE_IO, "pipe: %s", strerror(errno));
        goto out;
    }
    const pid_t pid = fork();
    if (pid == 0) {
        run_child(argv, log_fd, parent, report[1]);
    }
    if (pid < 0) {
        st = BASE_FAIL(BASE_IO, "fork for %s: %s", argv[0], strerror(errno));
        goto out;
    }
    (void)close(report[1]);
    report[1] = -1;
    if (read(report[0], &why, sizeof why) == (ssize_t)sizeof why) {
        (void)waitpid(pid, NULL, 0);
        st = BASE_FAIL(BASE_IO, "cannot start %s: %s", argv[0], strerror(why));
        goto out;
    }
    *pid_out = pid;
out:
    for (int i = 0; i < 2; i++) {
        if (report[i] >= 0) {
            (void)close(report[i]);
        }
    }
    if (log_path != NULL) {
        (void)close(log_fd);
    }
    return st;
}

base_status process_make_file(char *path)
{
    const int fd = mkstemp(path);
    if (fd < 0) {
        return BASE_FAIL(BASE_IO, "cannot make a file like %s", path);
    }
    (void)close(fd);
    return BASE_OK;
}

void process_said(const char *path, long begin, const char *mark, char *text_out, size_t n_bytes)
{
    char line[1024];
    FILE *log = path != NULL ? fopen(path, "r") : NULL;
    text_out[0] = '\0';
    if (log != NULL && fseek(log, begin, SEEK_SET) == 0) {
        while (text_out[0] == '\0' && fgets(line, sizeof line, log) != NULL) {
            const char *said = strstr(line, mark);
            if (said != NULL) {
                line[strcspn(line, "\n")] = '\0';
                (void)snprintf(text_out, n_bytes, "%s", said + strlen(mark));
            }
        }
    }
    if (log != NULL) {
        (void)fclose(log);
    }
}

bool process_alive(pid_t pid, int *exit_out)
{
    siginfo_t info = {0};
    /* WNOWAIT leaves it to be reaped by process_end, so that asking twice is safe. */
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
        *exit_out = 255;
        return false;
    }
    if (info.si_pid == 0) {
        return true;
    }
    *exit_out = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
    return false;
}

void process_end(pid_t pid, int64_t grace_ms)
{
    if (pid <= 0) {
        return;
    }
    const int64_t until = base_now_us() + grace_ms * 1000;
    (void)kill(pid, SIGTERM);
    while (waitpid(pid, NULL, WNOHANG) == 0) {
        if (base_now_us() > until) {
            (void)kill(-pid,
                       SIGKILL); /* its whole group: mpirun's ranks are in groups of their own */
            (void)kill(pid, SIGKILL);
            (void)waitpid(pid, NULL, 0);
            return;
        }
        base_sleep_us(5000);
    }
}
