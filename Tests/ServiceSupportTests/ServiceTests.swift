import Glibc
import JobModel
import Logging
import Synchronization
import Testing

@testable import ServiceSupport

@Suite("Logging")
struct LoggingTests {
    private func line(_ style: LineLogHandler.Style, _ body: (inout Logger) -> Void) -> String {
        let lines = Mutex<[UInt8]>([])
        var logger = Logger(label: "test") { _ in
            LineLogHandler(level: .debug, style: style) { bytes in lines.withLock { $0 += bytes } }
        }
        body(&logger)
        return String(decoding: lines.withLock { $0 }, as: UTF8.self)
    }

    @Test func journalLinesCarryThePriorityAndNoTime() {
        let text = line(.journal) { logger in
            logger[metadataKey: "gpu"] = "3"
            logger.warning("two\nlines", metadata: ["why": "a b", "at": "nats://u:pw@h"])
        }
        #expect(text == "<4>two\\nlines at=nats://***@h gpu=3 why=\"a b\"\n")
    }

    @Test func plainLinesCarryTimeAndLevel() throws {
        let text = line(.plain) { $0.info("hello") }
        #expect(text.wholeMatch(of: /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info     hello\n/) != nil, "\(text)")
    }

    @Test func whatIsBelowTheLevelIsNotLogged() {
        #expect(line(.plain) { $0.trace("hidden") } == "")
    }

    @Test(arguments: [
        (0.0, "1970-01-01T00:00:00.000Z"), (951_782_399.9996, "2000-02-28T23:59:59.999Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"), (1_772_323_200.25, "2026-03-01T00:00:00.250Z"),
        (-0.5, "1969-12-31T23:59:59.500Z"), (.infinity, "1970-01-01T00:00:00.000Z"),
    ])
    func timesAreWrittenInUTC(_ seconds: Double, _ text: String) {
        #expect(WallClock.text(seconds: seconds) == text)
    }
}

@Suite("Host and clock")
struct HostTests {
    @Test func theHostIsKnown() throws {
        #expect(!HostInfo.name.isEmpty)
        #expect(try HostInfo.bootID().count == 36)
        #expect(HostInfo.processID == Int(getpid()))
        #expect(HostInfo.environmentVariable("PATH") != nil)
    }

    @Test func theClockGoesForwardFromTheWallClock() {
        let clock = MonotonicClock()
        let first = clock.now()
        let second = clock.now()
        #expect(second >= first)
        #expect(abs(first.seconds - WallClock.now()) < 5)
    }
}

@Suite("systemd notifications")
struct ServiceNotifierTests {
    /// A datagram socket that stands for systemd.
    private final class Receiver {
        let descriptor: Int32
        let path: String

        init() throws {
            path = "/tmp/maestro-notify-\(UInt64.random(in: 0 ... .max))"
            descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
            let status = withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
            try #require(status == 0)
        }

        func receive() -> String {
            var buffer = [UInt8](repeating: 0, count: 512)
            let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
            return String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
        }

        deinit {
            close(descriptor)
            unlink(path)
        }
    }

    @Test func tellsSystemd() throws {
        let receiver = try Receiver()
        let notifier = ServiceNotifier { ["NOTIFY_SOCKET": receiver.path, "WATCHDOG_USEC": "2000000"][$0] }
        notifier.ready()
        #expect(receiver.receive() == "READY=1")
        notifier.status("two\nlines")
        #expect(receiver.receive() == "STATUS=two lines")
        notifier.keepAlive()
        #expect(receiver.receive() == "WATCHDOG=1")
        notifier.stopping()
        #expect(receiver.receive() == "STOPPING=1")
        #expect(notifier.watchdogInterval == .seconds(2))
    }

    @Test func isSilentWithoutSystemd() {
        let notifier = ServiceNotifier { ["WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"][$0] }
        notifier.ready()
        #expect(notifier.watchdogInterval == nil)
    }
}

@Suite("Signals")
struct TerminationSignalTests {
    @Test func aSignalArrivesAsAnElement() async throws {
        let signals = try TerminationSignals.stream()
        #expect(kill(getpid(), SIGHUP) == 0)
        var iterator = signals.makeAsyncIterator()
        let number = await iterator.next()
        #expect(number == SIGHUP)
        #expect(TerminationSignals.name(of: SIGHUP) == "SIGHUP")
    }
}
