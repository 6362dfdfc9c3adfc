import Glibc
import ServiceSupport
import Synchronization

/// Ctrl-C and its like, for commands that have something to say before they end.
///
/// From the first listener on, signals no longer end the program by themselves.
enum Interrupts {
    /// The exit status of a program that was interrupted, as shells have it.
    static let exitStatus: Int32 = 128 + SIGINT

    private static let listeners = Mutex<[UInt: AsyncStream<Int32>.Continuation]>([:])
    private static let lastNumber = Atomic<UInt>(0)

    /// Catches the signals and hands each to all who listen, as long as the program lives.
    private static let source: Task<Void, Never> = Task.detached {
        let signals: AsyncStream<Int32>
        do {
            signals = try TerminationSignals.stream()
        } catch {
            // Without handlers Ctrl-C ends the program at once, which is no worse than saying nothing.
            return
        }
        for await signal in signals {
            for listener in listeners.withLock({ Array($0.values) }) { listener.yield(signal) }
        }
    }

    /// Each signal as it arrives, until the listening task is cancelled.
    static func stream() -> AsyncStream<Int32> {
        _ = source
        let number = lastNumber.wrappingAdd(1, ordering: .relaxed).newValue
        let (stream, continuation) = AsyncStream.makeStream(of: Int32.self, bufferingPolicy: .bufferingOldest(4))
        continuation.onTermination = { _ in listeners.withLock { _ = $0.removeValue(forKey: number) } }
        listeners.withLock { $0[number] = continuation }
        return stream
    }
}
