use proptest::prelude::*;

use super::*;

fn spans() -> impl Strategy<Value = Span> {
    any::<[u32; 2]>()
        .prop_map(|[offset, length]| Span { offset: Octets(offset.into()), length: Octets(length.into()) })
}

fn hw_params() -> impl Strategy<Value = HwParams> {
    let frames = |[min, max]: [u32; 2]| Interval::new(Frames(min.into()), Frames(max.into()));
    (any::<u64>(), any::<[[u32; 2]; 4]>()).prop_map(move |(formats, [rates, channels, buffer, period])| {
        HwParams {
            formats: FormatSet::from_bits(formats),
            rates: Interval::new(rates[0], rates[1]),
            channels: Interval::new(channels[0], channels[1]),
            buffer: frames(buffer),
            period: frames(period),
        }
    })
}

fn opens() -> impl Strategy<Value = Open> {
    any::<([u32; 4], u8, u8)>().prop_map(|([rate, buffer, directory, period], format, channels)| Open {
        rate,
        format: FormatCode(format),
        channels,
        buffer: Octets(buffer.into()),
        directory: GrantRef(directory),
        period: Octets(period.into()),
    })
}

fn operations() -> impl Strategy<Value = Operation> {
    let triggers = [Trigger::Start, Trigger::Pause, Trigger::Stop, Trigger::Resume];
    prop_oneof![
        opens().prop_map(Operation::Open),
        Just(Operation::Close),
        spans().prop_map(Operation::Read),
        spans().prop_map(Operation::Write),
        spans().prop_map(Operation::SetVolume),
        spans().prop_map(Operation::GetVolume),
        spans().prop_map(Operation::Mute),
        spans().prop_map(Operation::Unmute),
        proptest::sample::select(triggers.to_vec()).prop_map(Operation::Trigger),
        hw_params().prop_map(Operation::HwParamQuery),
    ]
}

fn statuses() -> impl Strategy<Value = Status> {
    prop_oneof![Just(Ok(())), proptest::sample::select(Errno::ALL.to_vec()).prop_map(Err)]
}

fn packets() -> impl Strategy<Value = Packet> {
    proptest::array::uniform(any::<u8>())
}

proptest! {
    #[test]
    fn every_request_is_read_back(id: u16, operation in operations()) {
        let request = Request { id, operation };
        prop_assert_eq!(Request::parse(&request.encode()), Ok(request));
    }

    #[test]
    fn every_response_is_read_back(id: u16, operation: u8, status in statuses(), params in hw_params()) {
        let answers_query = operation == HW_PARAM_QUERY && status.is_ok();
        let response = Response { id, operation, status, hw_params: answers_query.then_some(params) };
        prop_assert_eq!(Response::parse(&response.encode()), Ok(response));
        let answer = Response { id, operation: HW_PARAM_QUERY, status: Ok(()), hw_params: Some(params) };
        prop_assert_eq!(Response::parse(&answer.encode()), Ok(answer));
    }

    #[test]
    fn every_event_is_read_back(id: u16, position: u64) {
        let event = Event { id, position: Octets(position) };
        prop_assert_eq!(Event::parse(&event.encode()), Ok(event));
    }

    #[test]
    fn whatever_a_guest_sends_is_read_or_refused_by_its_id_and_code(mut packet in packets(), operation in 0u8..14) {
        packet[2] = operation;
        let (id, code) = match Request::parse(&packet) {
            Ok(request) => {
                // What is left of the guest's octets means the same; reserved ones are zero by now.
                prop_assert_eq!(Request::parse(&request.encode()), Ok(request));
                let response = request.response(Ok(()));
                (response.id, response.operation)
            }
            Err(malformed) => {
                let response = malformed.response();
                prop_assert!(response.status.is_err());
                (response.id, response.operation)
            }
        };
        prop_assert_eq!(id, u16::from_le_bytes([packet[0], packet[1]]));
        prop_assert_eq!(code, operation);
    }

    #[test]
    fn no_packet_harms_the_reader_of_responses_and_events(packet in packets()) {
        if let Ok(response) = Response::parse(&packet) {
            prop_assert_eq!(Response::parse(&response.encode()), Ok(response));
        }
        if let Ok(event) = Event::parse(&packet) {
            prop_assert_eq!(Event::parse(&event.encode()), Ok(event));
        }
    }
}

#[test]
fn what_linux_leaves_in_reserved_fields_does_not_matter() {
    let span = Span { offset: Octets(960), length: Octets(480) };
    let request = Request { id: 7, operation: Operation::Write(span) };
    let mut packet = request.encode();
    packet[3..8].fill(0xaa);
    packet[16..].fill(0xaa);
    assert_eq!(Request::parse(&packet), Ok(request));
}

#[test]
fn unknown_codes_are_refused_by_name() {
    let mut packet = [0; PACKET];
    packet[..3].copy_from_slice(&[1, 0, 10]);
    let malformed = Request::parse(&packet).unwrap_err();
    assert_eq!(malformed, Malformed { id: 1, operation: 10, reason: MalformedReason::Operation(10) });
    assert_eq!(malformed.to_string(), "request 1 is malformed: the protocol has no operation 10");
    assert_eq!(malformed.response().status, Err(Errno::NotSupported));
    packet[2] = TRIGGER;
    packet[8] = 4;
    let malformed = Request::parse(&packet).unwrap_err();
    assert_eq!(malformed.reason, MalformedReason::Trigger(4));
    assert_eq!(malformed.response().status, Err(Errno::Invalid));
}

#[test]
fn positive_statuses_and_unknown_events_are_no_packets_of_ours() {
    let mut packet = [0; PACKET];
    packet[4] = 1;
    assert_eq!(Response::parse(&packet), Err(UnknownStatus(1)));
    packet[2] = 1;
    assert_eq!(Event::parse(&packet), Err(UnknownEvent(1)));
}
