import FakeRig
import Testing

@testable import GPUTelemetry

struct HealthTests {
    private func well() -> CardSigns {
        var signs = CardSigns()
        signs.configVendor = 0x1002
        signs.vramLostCounter = 4
        signs.isAccelerationWorking = true
        signs.linkWidth = 16
        return signs
    }

    private func reasons(_ findings: [HealthFinding]) -> [HealthFinding.Reason] { findings.map(\.reason) }

    @Test func aCardThatIsWellHasNoFindings() {
        var watch = HealthWatch()
        for _ in 0..<10 { #expect(watch.examine(well()) == []) }
        #expect(watch.linkBaseline == 16)
        // What could not be looked at is no sign.
        #expect(watch.examine(CardSigns()) == [])
    }

    @Test func aResetIsFoundOnceAndOnlyWhenTheCounterGoesUp() {
        var watch = HealthWatch()
        var signs = well()
        #expect(watch.examine(signs) == [])
        signs.vramLostCounter = 6
        let findings = watch.examine(signs)
        #expect(reasons(findings) == [.reset])
        #expect(findings.first?.severity == .probation)
        #expect(findings.first?.evidence.contains("from 4 to 6") == true)
        #expect(watch.examine(signs) == [])
        // A driver that was loaded anew counts from 0.
        signs.vramLostCounter = 0
        #expect(watch.examine(signs) == [])
        signs.vramLostCounter = nil
        #expect(watch.examine(signs) == [])
        signs.vramLostCounter = 1
        #expect(reasons(watch.examine(signs)) == [.reset])
    }

    @Test func aVanishedOrSilentCardIsQuarantined() {
        var watch = HealthWatch()
        var signs = well()
        signs.isPresent = false
        #expect(watch.examine(signs).map(\.severity) == [.quarantine])
        signs = well()
        signs.configVendor = 0xFFFF
        #expect(reasons(watch.examine(signs)) == [.unreachable])
        signs.configVendor = nil
        signs.isConfigEmpty = true
        #expect(reasons(watch.examine(signs)) == [.unreachable])
    }

    @Test func aDriverInResetIsNotBroken() {
        var watch = HealthWatch()
        var signs = well()
        signs.driverError = 16
        #expect(watch.examine(signs).map(\.severity) == [.notice])
        signs.driverError = 19
        #expect(watch.examine(signs).map(\.severity) == [.quarantine])
    }

    @Test func aNarrowLinkCountsWhenItLasts() {
        var watch = HealthWatch(linkBaseline: 8)
        var signs = well()
        signs.linkWidth = 4
        #expect(watch.examine(signs) == [])
        #expect(watch.examine(signs) == [])
        let findings = watch.examine(signs)
        #expect(reasons(findings) == [.linkNarrowed])
        #expect(findings.first?.evidence == "PCIe link has x4, it had x8")
        signs.linkWidth = 8
        #expect(watch.examine(signs) == [])
        signs.linkWidth = 4
        #expect(watch.examine(signs) == [])
        #expect(watch.linkBaseline == 8)
    }

    @Test func aCoreDumpOfAnEarlierTimeIsNoSign() {
        var watch = HealthWatch()
        var signs = well()
        signs.hasCoreDump = true
        #expect(watch.examine(signs) == [])
        signs.hasCoreDump = false
        #expect(watch.examine(signs) == [])
        signs.hasCoreDump = true
        #expect(reasons(watch.examine(signs)) == [.coreDump])
        #expect(watch.examine(signs) == [])
    }

    @Test func xidsAreJudgedByWhoseFaultTheyAre() {
        #expect(HealthWatch.finding(ofXID: 31).severity == .notice)
        #expect(HealthWatch.finding(ofXID: 79).severity == .quarantine)
        #expect(HealthWatch.finding(ofXID: 12345).severity == .probation)
    }

    // MARK: uevents

    private let path = "/devices/pci0000:00/0000:00:01.0/0000:03:00.0/drm/card5"

    private func kernel(_ properties: String...) -> [UInt8] {
        Array(
            (["change@\(path)", "ACTION=change", "DEVPATH=\(path)", "SUBSYSTEM=drm"] + properties)
                .joined(separator: "\0").utf8
        ) + [0]
    }

    private func udev(_ properties: String..., magic: UInt32 = 0xFEED_CAFE, offset: UInt32 = 40) -> [UInt8] {
        let body = Array((["ACTION=change", "DEVPATH=\(path)"] + properties).joined(separator: "\0").utf8) + [0]
        func bytes(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
        let header =
            Array("libudev\0".utf8) + bytes(magic.bigEndian) + bytes(40) + bytes(offset)
            + bytes(UInt32(body.count)) + [UInt8](repeating: 0, count: 16)
        return header + body
    }

    @Test func bothFramingsOfAWedgedCardAreRead() throws {
        for message in [kernel("WEDGED=rebind,bus-reset"), udev("WEDGED=rebind,bus-reset")] {
            let event = try #require(UEvent(parsing: message))
            #expect(event.address == PCIAddress("0000:03:00.0"))
            #expect(event.finding?.severity == .quarantine)
            #expect(event.finding?.evidence.contains("rebind,bus-reset") == true)
        }
        let recovered = try #require(UEvent(parsing: kernel("WEDGED=none")))
        #expect(recovered.finding?.severity == .probation)
        #expect(try #require(UEvent(parsing: kernel("HOTPLUG=1"))).finding == nil)
    }

    @Test func malformedUEventsAreRefused() {
        let good = udev("WEDGED=none")
        #expect(UEvent(parsing: []) == nil)
        #expect(UEvent(parsing: Array("change@/x".utf8)) == nil)
        #expect(UEvent(parsing: Array("change@/x\0ACTION".utf8)) == nil)
        #expect(UEvent(parsing: udev("A=b", magic: 1)) == nil)
        #expect(UEvent(parsing: udev("A=b", offset: 4_000_000_000)) == nil)
        #expect(UEvent(parsing: [UInt8](repeating: 0xff, count: 10000)) == nil)
        // Any cut of a message is refused or read, never more.
        for length in 0..<good.count { _ = UEvent(parsing: Array(good.prefix(length))) }
        var generator = SplitMix64(seed: 1)
        for _ in 0..<2000 {
            var bytes = good
            for _ in 0..<4 {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            }
            if let event = UEvent(parsing: bytes) { #expect(event.properties["ACTION"] != nil) }
        }
    }
}
