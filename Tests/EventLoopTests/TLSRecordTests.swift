import CEventLoop
import Glibc
import Testing

/// Reading must never wait for the rest of a record.
struct TLSRecordTests {
    private let pair: SocketPair
    init() throws { pair = try SocketPair() }

    private func isReadable() -> Bool {
        var one = pollfd(fd: pair.near, events: Int16(POLLIN), revents: 0)
        return poll(&one, 1, 0) == 1
    }

    private static func record(_ length: Int) -> [UInt8] {
        [23, 3, 3, UInt8(length >> 8), UInt8(length & 255)] + Array(repeating: 7, count: length)
    }

    @Test(arguments: [1, 300, 16_640]) func aRecordIsReadOnceItIsWhole(length: Int) {
        let record = Self.record(length)
        #expect(!ceventloop_has_tls_record(pair.near))
        for cut in [1, 4, 5, record.count - 1] where cut < record.count {
            pair.send(Array(record[pair.sent..<max(cut, pair.sent)]))
            #expect(!ceventloop_has_tls_record(pair.near))
            #expect(!isReadable(), "nobody is woken for \(cut) bytes")
        }
        pair.send(Array(record[pair.sent...]))
        #expect(isReadable())
        #expect(ceventloop_has_tls_record(pair.near))
        #expect(pair.receive() == record, "looking takes nothing away")
        // The next one, which is short, is heard of as well.
        pair.send([21])
        #expect(isReadable())
        #expect(!ceventloop_has_tls_record(pair.near))
    }

    @Test func theEndIsReadThoughTheRecordIsNotWhole() {
        pair.send(Array(Self.record(100).dropLast()))
        #expect(!ceventloop_has_tls_record(pair.near))
        pair.end()
        #expect(isReadable())
        #expect(ceventloop_has_tls_record(pair.near))
    }

    @Test func theEndAloneIsRead() {
        pair.end()
        #expect(ceventloop_has_tls_record(pair.near))
    }

    @Test func aLengthThatCannotBeIsRead() {
        pair.send([23, 3, 3, 255, 255])
        #expect(ceventloop_has_tls_record(pair.near))
    }

    @Test(arguments: ["INFO {}\r\n", "+OK\r\n", "-ERR 'x'\r\n", "MSG a 1 0\r\n"]) func linesAreNoRecords(line: String) {
        pair.send(Array(line.utf8))
        #expect(ceventloop_begins_tls(pair.near) == 0)
        #expect(pair.receive() == Array(line.utf8))
    }

    @Test func oneByteShowsARecord() {
        #expect(ceventloop_begins_tls(pair.near) == -1)
        pair.send([23])
        #expect(ceventloop_begins_tls(pair.near) == 1)
        #expect(pair.receive() == [23])
    }
}
