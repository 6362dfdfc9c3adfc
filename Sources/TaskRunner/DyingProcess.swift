import CProcess
import Glibc
import Synchronization

/// A process that was sent SIGKILL, watched until it is dead.
final class DyingProcess: Sendable {
    let entry: ProcessEntry
    private let descriptor: Descriptor
    /// Its pidfd.
    var number: Int32 { descriptor.number }
    private let watching = Mutex<(Reactor, Reactor.Token)?>(nil)

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

    /// Calls back once, on the reactor's thread, when the process is dead. False when it cannot be watched.
    func watch(on reactor: Reactor, onDeath: @escaping @Sendable (ProcessEntry) -> Void) -> Bool {
        let token = reactor.makeToken()
        watching.withLock { $0 = (reactor, token) }
        do throws(Errno) {
            try reactor.watch(descriptor.number, as: token) { [self] in
                unwatch()
                onDeath(entry)
            }
            return true
        } catch {
            return false
        }
    }

    func unwatch() {
        guard let (reactor, token) = watching.withLock({ $0.take() }) else { return }
        reactor.unwatch(token, descriptor: descriptor.number)
    }
}
