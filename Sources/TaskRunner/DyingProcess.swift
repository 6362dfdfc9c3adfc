import CProcess
import EventLoop
import Glibc
import Synchronization

/// A process that was sent SIGKILL, watched until it is dead.
final class DyingProcess: Sendable {
    let entry: ProcessEntry
    private let descriptor: Descriptor
    /// Its pidfd.
    var number: Int32 { descriptor.number }
    private let watching = Mutex<(EventLoop, EventLoop.Token)?>(nil)

    /// Kills exactly this process; nil when it is gone already.
    init?(killing entry: ProcessEntry) {
        let number = cprocess_pidfd(entry.pid)
        guard number >= 0 else { return nil }
        descriptor = Descriptor(owning: number)
        self.entry = entry
        // The pidfd holds whoever has the pid now; the start time tells whether that is still the one we mean.
        guard let now = ProcessEntry(pid: entry.pid), now.started == entry.started, !now.isDead else { return nil }
        _ = cprocess_pidfd_kill(descriptor.number, SIGKILL)
    }

    /// Watches this process and leaves it alone; nil when it is gone already.
    init?(watching entry: ProcessEntry) {
        let number = cprocess_pidfd(entry.pid)
        guard number >= 0 else { return nil }
        descriptor = Descriptor(owning: number)
        self.entry = entry
    }

    /// Calls back once, on the loop's thread, when the process is dead. False when it cannot be watched.
    func watch(on loop: EventLoop, onDeath: @escaping @Sendable (ProcessEntry) -> Void) -> Bool {
        let token = loop.makeToken()
        watching.withLock { $0 = (loop, token) }
        do throws(Errno) {
            try loop.watch(descriptor.number, as: token) { [self] in
                unwatch()
                onDeath(entry)
            }
            return true
        } catch {
            return false
        }
    }

    func unwatch() {
        guard let (loop, token) = watching.withLock({ $0.take() }) else { return }
        loop.unwatch(token, descriptor: descriptor.number)
    }
}
